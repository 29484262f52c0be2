"""The notebook of robust fine-tuning: its cells run, in their order, on a few images and a small network."""

import json
import pathlib

import data_files
import matplotlib
import matplotlib.pyplot as plt
import pytest

NOTEBOOK = pathlib.Path(__file__).parents[1] / "docs/notebooks/finetuning.ipynb"
SMALL = {  # what makes it small
    '"released:efficientnet-lite0"': '"base"',
    '"image_size": 64, "validation": 200, "validation_every": 4': (
        '"image_size": 32, "epochs": 1, "validation": 9, "batch_size": 12, '
        '"validation_attack": "pgd-1", "warmup_epochs": 0'
    ),
    '"clean,pgd-10", "eval_images": 200': '"clean,pgd-1", "eval_checks": 0',
}


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Be in a folder with photographs, and with a run in `base` whose weights are started from."""
    monkeypatch.chdir(tmp_path)
    for part, first in (("train", 0), ("test", 21)):
        data_files.write_photographs(tmp_path / "photographs" / part, 7 if part == "train" else 3, first=first)
    data_files.write_run(tmp_path / "base")
    return tmp_path


def test_the_cells_run(photographs, capsys):
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    for old, new in SMALL.items():
        assert old in text
        text = text.replace(old, new)
    with matplotlib.rc_context({"backend": "agg"}):
        scope = {}
        exec(compile(text, NOTEBOOK.name, "exec"), scope)
        assert len(plt.get_fignums()) == 3
        plt.close("all")
    said = capsys.readouterr().out
    assert "from ImageNet, pgd-1" in said and "from scratch, clean" in said
    assert "(None, 32, 32, 3) -> (None, 3)" in said or "(None, None, None, 3) -> (None, 3)" in said
    assert scope["tuned"]["recipe"]["init"] == "base" and scope["scratch"]["recipe"]["init"] is None


def test_the_notebook_is_whole():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert "error" not in {output["output_type"] for output in outputs}
