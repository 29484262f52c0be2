"""The notebooks: each is what its script says, with its pictures, and its cells run."""

import importlib.util
import json
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "notebooks"
SMALL = {  # what makes a notebook small, and what must be there afterwards
    "own_keras_model": (
        {
            '"fashion_mnist_12k"': '"synthetic"',
            "EPOCHS = 4": "EPOCHS = 1",
            "ATTACKED = 300": "ATTACKED = 6",
            "checks=10": "checks=0",
            '"pgd-10"': '"pgd-1"',
        },
        ("best.keras", "mine.keras", "report/report.md"),
    )
}

ELSEWHERE = {"finetuning", "own_folder"}  # each has a test of its own: tests/test_notebook_*.py


@pytest.fixture(scope="module")
def write():
    spec = importlib.util.spec_from_file_location("write_notebooks", FOLDER / "write.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_notebook_is_tested():
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {"write"}
    assert scripts == set(SMALL) and {path.stem for path in FOLDER.glob("*.ipynb")} == scripts | ELSEWHERE


def stored(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_is_its_script(name, write):
    notebook = stored(name)
    cells = write.cells_of((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]] == cells
    assert notebook["nbformat"] == 4 and len({cell["id"] for cell in notebook["cells"]}) == len(cells)


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_has_its_pictures(name):
    outputs = [output for cell in stored(name)["cells"] for output in cell.get("outputs", ())]
    if not outputs:
        pytest.skip(f"its outputs are not recorded yet: python docs/notebooks/write.py {name}")
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert "error" not in {output["output_type"] for output in outputs}


@pytest.mark.parametrize("name", SMALL)
def test_the_cells_of_a_notebook_run(name, write, tmp_path, monkeypatch):
    replacements, files = SMALL[name]
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    monkeypatch.chdir(tmp_path)
    shown = write.run(write.cells_of(text))
    assert [path for path in files if not (tmp_path / path).exists()] == []
    assert sum("image/png" in output.get("data", {}) for outputs in shown for output in outputs) >= 2
    assert any("text/html" in output.get("data", {}) for outputs in shown for output in outputs)
