"""The arrows of the house: which room imports which. An import that is not listed here is a bug."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = ("hparams", "resnet", "efficientnet")  # at the top of the repository; Python finds them below sat_tf

ARROWS = {  # room or module: what of ours it may import
    "sat_tf.hparams": {"sat_tf.names"},
    "sat_tf.layers": {"sat_tf.replicas"},
    "sat_tf.resnet": {"sat_tf.layers"},
    "sat_tf.efficientnet": {"sat_tf.layers"},
    "sat_tf": set(),
    **{
        f"sat_tf.{leaf}": set()
        for leaf in (
            "files",
            "formulas",
            "names",
            "losses",
            "mixing",
            "schedules",
            "decoding",
            "autoaugment",
            "interruption",
            "torch_file",
            "serving",
            "corruptions",
            "verify",
            "progress",
            "stopping",
            "profiler",
            "inputs",
            "replicas",
            "half",
            "memory",
            "pointers",
            "graphs",
        )
    },
    "sat_tf.distribute": {"sat_tf.memory"},
    "sat_tf.recomputed": {"sat_tf.half"},
    "sat_tf.machine": {"sat_tf", "sat_tf.onednn"},
    "sat_tf.onednn": {"sat_tf.layers"},
    "sat_tf.activations": {"sat_tf.formulas", "sat_tf.layers", "sat_tf.names"},
    "sat_tf.console": {"sat_tf.progress"},
    "sat_tf.saving": {"sat_tf.files", "sat_tf.pointers"},
    "sat_tf.report": {"sat_tf.files", "sat_tf.names"},
    "sat_tf.optim": set(),
    "sat_tf.attacks": {"sat_tf.losses", "sat_tf.replicas"},
    "sat_tf.evaluate": {
        "sat_tf.attacks",
        "sat_tf.losses",
        "sat_tf.files",
        "sat_tf.graphs",
        "sat_tf.half",
        "sat_tf.inputs",
        "sat_tf.models",
        "sat_tf.replicas",
    },
    "sat_tf.preprocess": {"sat_tf.decoding"},
    "sat_tf.data": {
        "sat_tf.decoding",
        "sat_tf.preprocess",
        "sat_tf.autoaugment",
        "sat_tf.mixing",
        "sat_tf.files",
        "sat_tf.names",
        "sat_tf.progress",
    },
    "sat_tf.models": {"sat_tf.activations", "sat_tf.names", "sat_tf.layers", "sat_tf.resnet", "sat_tf.efficientnet"},
    "sat_tf.heads": set(),
    "sat_tf.networks": {"sat_tf.heads", "sat_tf.inputs", "sat_tf.models", "sat_tf.names"},
    "sat_tf.cost": {"sat_tf.layers"},
    "sat_tf.released": {
        "sat_tf.files",
        "sat_tf.models",
        "sat_tf.torch_file",
        "sat_tf.saving",
        "sat_tf.cost",
        "sat_tf.efficientnet",
        "sat_tf.resnet",
    },
    "sat_tf.export": {
        "sat_tf.preprocess",
        "sat_tf.activations",
        "sat_tf.report",
        "sat_tf.files",
        "sat_tf.names",
        "sat_tf.layers",
        "sat_tf.resnet",
    },
    "sat_tf.passes": {"sat_tf.activations", "sat_tf.half"},
    "sat_tf.methods": {f"sat_tf.{name}" for name in ("losses", "attacks", "names", "passes", "replicas", "schedules")},
    "sat_tf.train": {
        "sat_tf.graphs",
        "sat_tf.methods",
        "sat_tf.optim",
        "sat_tf.layers",
        "sat_tf.inputs",
        "sat_tf.memory",
        "sat_tf.onednn",
        "sat_tf.recomputed",
    },
    "sat_tf.fit": {
        "sat_tf.activations",
        "sat_tf.attacks",
        "sat_tf.evaluate",
        "sat_tf.inputs",
        "sat_tf.console",
        "sat_tf.files",
        "sat_tf.half",
        "sat_tf.losses",
        "sat_tf.machine",
        "sat_tf.methods",
        "sat_tf.names",
        "sat_tf.onednn",
        "sat_tf.passes",
        "sat_tf.report",
        "sat_tf.train",
    },
    "sat_tf.comparison": {"sat_tf.hparams", "sat_tf.report"},
    "sat_tf.assembly": {
        *(
            f"sat_tf.{name}"
            for name in (
                "activations",
                "attacks",
                "autoaugment",
                "console",
                "cost",
                "data",
                "distribute",
                "evaluate",
                "half",
                "heads",
                "hparams",
                "layers",
                "losses",
                "methods",
                "mixing",
                "models",
                "networks",
                "optim",
                "passes",
                "progress",
                "recomputed",
                "replicas",
                "pointers",
                "saving",
                "schedules",
                "stopping",
                "train",
            )
        )
    },
    "sat_tf.runs": {
        "sat_tf",
        *(
            f"sat_tf.{name}"
            for name in (
                "assembly",
                "data",
                "evaluate",
                "export",
                "files",
                "heads",
                "hparams",
                "inputs",
                "layers",
                "machine",
                "methods",
                "models",
                "networks",
                "released",
                "report",
                "pointers",
                "saving",
            )
        ),
    },
    "sat_tf.experiment": {
        *(
            f"sat_tf.{name}"
            for name in (
                "activations",
                "assembly",
                "attacks",
                "comparison",
                "console",
                "corruptions",
                "cost",
                "data",
                "distribute",
                "evaluate",
                "export",
                "files",
                "graphs",
                "half",
                "hparams",
                "interruption",
                "machine",
                "mechanism",
                "names",
                "optim",
                "preprocess",
                "profiler",
                "progress",
                "released",
                "report",
                "runs",
                "pointers",
                "saving",
                "stopping",
                "train",
                "verify",
            )
        )
    },
    "sat_tf.mechanism": {
        *(
            f"sat_tf.{name}"
            for name in (
                "assembly",
                "attacks",
                "console",
                "distribute",
                "evaluate",
                "files",
                "graphs",
                "hparams",
                "losses",
                "machine",
                "report",
                "runs",
                "pointers",
                "saving",
                "train",
            )
        )
    },
    "sat_tf.grid": {"sat_tf.hparams", "sat_tf.experiment", "sat_tf.files", "sat_tf.progress", "sat_tf.report"},
    "sat_tf.cli": {
        "sat_tf.interruption",
        "sat_tf",
        "sat_tf.distribute",
        "sat_tf.hparams",
        "sat_tf.experiment",
        "sat_tf.grid",
        "sat_tf.names",
        "sat_tf.pointers",
    },
    "sat_tf.__main__": {"sat_tf.cli"},
    "main": {"sat_tf.cli"},
}
READERS = ("sat_tf.hparams", "sat_tf.assembly", "sat_tf.runs", "sat_tf.experiment", "sat_tf.cli")  # of recipes
AT_ONCE = (
    "sat_tf.hparams",
    "sat_tf",
    "sat_tf.files",
    "sat_tf.names",
    "sat_tf.pointers",
    "sat_tf.cli",
    "sat_tf.__main__",
    "main",
)
FILES = [ROOT / "main.py", *(file for room in ("sat_tf", *ROOMS) for file in sorted((ROOT / room).rglob("*.py")))]


def module_of(file):
    """Return the module or package whose arrows a file must keep: sat_tf/data/folder.py -> sat_tf.data."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = ("sat_tf", *parts) if parts[0] in ROOMS else parts
    return parts[0] if parts[1:] in ((), ("__init__",)) else ".".join(parts[:2])


def imports_of(file):
    """Return every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in inside if is_module(name)}
            found |= modules | ({node.module} if modules != inside else set())
    return found


def is_module(name):
    parts = name.split(".")
    path = ROOT.joinpath(*parts[1:] if parts[1:] and parts[1] in ROOMS else parts)
    return path.is_dir() or path.with_suffix(".py").is_file()


def ours(name):
    """Return the module or package that an imported name belongs to, None where it is not ours.

    A room by its folder's name is not ours: a user's own file of that name is what Python may find.
    """
    assert name.split(".")[0] not in ROOMS, f"{name} is spelled sat_tf.{name}"
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "sat_tf" else None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_follow_the_arrows(file):
    module = module_of(file)
    assert module in ARROWS, f"{module} has no row in ARROWS"
    wanted = {ours(name) for name in imports_of(file)} - {None, module}
    assert wanted <= ARROWS[module], f"{file.name} imports {sorted(wanted - ARROWS[module])}"


@pytest.mark.parametrize(
    "file", [f for f in FILES if module_of(f) in AT_ONCE], ids=lambda file: str(file.relative_to(ROOT))
)
def test_what_answers_at_once_imports_nothing_heavy(file):
    top = {
        node
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in top if isinstance(node, ast.ImportFrom)}
    heavy = {name for name in names if name.split(".")[0] in ("tensorflow", "keras", "numpy", "matplotlib", "tqdm")}
    assert not heavy and "sat_tf.experiment" not in names


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_few_rooms_read_recipes_and_only_cli_reads_flags(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    read = {
        node.value.id for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert module_of(file) == "sat_tf.cli" or not {"FLAGS", "flags"} & read
    assert module_of(file) in READERS or "recipe" not in read


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_stay_readable(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400
    assert file.stem not in ("utils", "common", "base", "helpers")


def test_every_module_has_its_test():
    modules = {module_of(file).rpartition(".")[2] for file in FILES} - {"sat_tf", "__main__", "main"}
    tested = {file.stem.removeprefix("test_") for file in (ROOT / "tests").glob("test_*.py")}
    assert modules <= tested
