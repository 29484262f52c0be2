"""The wheel: one package, whole, beside neighbours of the same names; and a checkout, installed or not."""

import email
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

import sat_tf
from sat_tf import hparams

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = ("hparams", "resnet", "efficientnet")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
OFFLINE = ["--no-deps", "--no-index"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return the wheel's path, built of a copy: building leaves files in its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "sources"
    copy.mkdir()
    for name in ("sat_tf", *ROOMS):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "main.py"):
        shutil.copy(ROOT / name, copy / name)
    command = [*PIP, "wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", folder, copy]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel):
    """Return a folder with the wheel installed in it, and its program below bin/."""
    folder = wheel.parent / "site"
    subprocess.run([*PIP, "install", *OFFLINE, "--target", folder, wheel], check=True, capture_output=True)
    return folder


def test_the_wheel_holds_one_package_and_all_of_it(wheel):
    files = zipfile.ZipFile(wheel).namelist()
    assert {file.partition("/")[0] for file in files} == {"sat_tf", f"sat_tf-{sat_tf.__version__}.dist-info"}
    sources = [*(ROOT / "sat_tf").rglob("*.py"), *(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))]
    wanted = {file.relative_to(ROOT).as_posix() for file in sources}
    wanted = {name if name.startswith("sat_tf/") else f"sat_tf/{name}" for name in wanted}
    data = {"py.typed", "data/fashion_mnist_12k.npz", "data/fashion_mnist_12k.LICENSE"}
    assert {file for file in files if file.startswith("sat_tf/")} == wanted | {f"sat_tf/{file}" for file in data}


def test_the_metadata_is_complete(wheel):
    with zipfile.ZipFile(wheel) as archive:
        folder = f"sat_tf-{sat_tf.__version__}.dist-info"
        found = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
        assert archive.read(f"{folder}/entry_points.txt").decode().split() == [
            "[console_scripts]",
            "sat-tf",
            "=",
            "sat_tf.cli:main",
        ]
        assert any(name.startswith(folder) and name.endswith("LICENSE") for name in archive.namelist())
    assert (found["Name"], found["Version"], found["License"]) == ("sat-tf", sat_tf.__version__, "Apache-2.0")
    assert found["Requires-Python"] == ">=3.10" and found["Keywords"] and found["Author"]
    assert {line.partition(",")[0] for line in found.get_all("Project-URL")} >= {"Documentation", "Changelog", "Issues"}
    assert "Typing :: Typed" in found.get_all("Classifier")
    text = found.get_payload()
    images = re.findall(r"!\[[^\]]*\]\(([^)]*)\)|<img [^>]*src=\"([^\"]*)", text)
    assert images and all("".join(image).startswith("https://") for image in images)
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)]*)\)", text)
    assert links and all(re.match(r"https?://|mailto:|#", link) for link in links)
    for address in filter(lambda address: "/main/" in address, [*("".join(image) for image in images), *links]):
        assert (ROOT / re.split(r"/main/|#", address)[1]).exists(), address


HOSTILE = 'raise ImportError(f"{__file__} was imported")\n'
SCRIPT = """
import pathlib, runpy, sys
import sat_tf
from sat_tf import cli, hparams, layers, models, resnet
from sat_tf.efficientnet import VARIANTS

site = pathlib.Path(sys.argv.pop(1))
ours = [module for name, module in sys.modules.items() if name.partition(".")[0] == "sat_tf"]
assert all(pathlib.Path(module.__file__).is_relative_to(site) for module in ours), ours
assert "efficientnet-b0" in VARIANTS and models.MODELS and hparams.choose({}).model == "resnet20"
theirs = {"layers", "hparams", "resnet", "efficientnet", "main"}
assert not theirs & set(sys.modules)
sys.argv[0] = str(site / "bin" / "sat-tf")
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    assert not theirs & set(sys.modules)
"""


def test_the_wheel_trains_beside_files_of_the_same_names(site, tmp_path):
    """A user's own layers.py and so on beside the script, PyPI's efficientnet installed; sat-tf trains one step."""
    for name in ("layers", "hparams", "resnet", "efficientnet", "main"):
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    (site / "efficientnet").mkdir()
    (site / "efficientnet" / "__init__.py").write_text(HOSTILE)
    (tmp_path / "mine.py").write_text(SCRIPT)
    words = "--dataset=synthetic --model=resnet8-w8 --epochs=1 --batch_size=380 --eval_attacks=clean --model_dir=run"
    settings = [
        "validation=20",
        "image_size=8",
        "steps_per_call=1",
        "validation_attack=fgsm",
        "eval_images=20",
        "eval_checks=0",
    ]
    done = subprocess.run(
        [sys.executable, "mine.py", site, *words.split(), *(f"--set={setting}" for setting in settings)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(site)},
    )
    assert done.returncode == 0, done.stderr
    assert "clean accuracy: " in done.stdout and (tmp_path / "run" / "report.json").is_file()
    assert '"sat-tf --dataset=synthetic --model=resnet8-w8' in (tmp_path / "run" / "report.json").read_text()


def environment():
    """Return the environment without the paths that a user's may add to."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_rooms_and_package_are_of_one_tree():
    """An install of another checkout would lend its rooms to this one's package."""
    assert pathlib.Path(sat_tf.__file__).parents[1] == pathlib.Path(hparams.__file__).parents[1] == ROOT


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_checkout_that_is_not_installed_says_how(elsewhere, site, tmp_path):
    """One line with the README's command, where nothing is installed and where it is the wheel alone."""
    for name in ("sat_tf", *ROOMS):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "main.py", tmp_path)
    program = [sys.executable, "-S", tmp_path / "main.py", "--help"]
    paths = environment() | ({"PYTHONPATH": str(site)} if elsewhere else {})
    done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, env=paths)
    (line,) = done.stderr.splitlines()
    install = re.search(r"^python3 -m venv.*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)[0]
    assert done.returncode == 1 and done.stdout == "" and line.endswith(f"run {install}")
