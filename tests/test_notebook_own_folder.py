"""The notebook on one's own folder: its cells run, at a small size; run as a program this file fills in its outputs.

python tests/test_notebook_own_folder.py FOLDER   # where its images and runs go
"""

import ast
import base64
import contextlib
import io
import json
import os
import pathlib
import shlex
import sys
from unittest import mock

import pytest
from doc_pages import ROOT, run_main

from sat_tf import experiment

NOTEBOOK = ROOT / "docs/notebooks/own_folder.ipynb"
SMALL = {  # what makes it small
    "COUNT = 60": "COUNT = 11",
    "--epochs=30": "--epochs=1 --set batch_size=16 --set validation_attack=pgd-1 "
    "--set warmup_epochs=0 --set eval_checks=0 --eval_attacks=clean,pgd-1",
    "pgd-50": "pgd-2",
}


def run_cells(cells):
    """Run code cells as a notebook does, `!sat-tf` in this process; yield each with its outputs."""
    scope = {}
    for cell in cells:
        said, shown = io.StringIO(), None
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            if cell.startswith("!"):
                assert run_main(shlex.split(cell[1:])) == 0, said.getvalue()
            else:
                shown = run_code(cell, scope)
        outputs = []
        if text := said.getvalue():
            outputs.append({"name": "stdout", "output_type": "stream", "text": lines(text)})
        if shown is not None:
            outputs.append({"data": as_data(shown), "metadata": {}, "output_type": "display_data"})
        yield cell, outputs


def run_code(cell, scope):
    """Run Python and return the value of its last line, None where that is no expression."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), scope)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), scope) if last else None


def as_data(shown):
    if hasattr(shown, "save"):
        buffer = io.BytesIO()
        shown.save(buffer, "PNG")
        return {"image/png": base64.b64encode(buffer.getvalue()).decode(), "text/plain": [repr(type(shown).__name__)]}
    return {"text/plain": lines(repr(shown))}


def lines(text):
    return text.splitlines(keepends=True)


def code_of(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Return the folder in which the notebook was run at a small size, and what its cells gave."""
    folder = tmp_path_factory.mktemp("notebook")
    cells = code_of(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    for old, new in SMALL.items():
        assert sum(old in cell for cell in cells) == 1, old
        cells = [cell.replace(old, new) for cell in cells]
    with pytest.MonkeyPatch.context() as patch, mock.patch.object(experiment, "start", autospec=True):
        patch.chdir(folder)
        return folder, list(run_cells(cells))


def test_the_cells_run(ran):
    folder, given = ran
    images = [output["data"] for _, outputs in given for output in outputs if "data" in output]
    assert sum("image/png" in data for data in images) == 3
    for name in ("run/report.html", "run/evaluations/001/report.md", "run/evaluations/001/images.csv"):
        assert (folder / name).exists()
    assert json.loads((folder / "run/data.json").read_text())["data_dir"] == str(folder / "photos")


def test_the_notebook_has_the_outputs_of_its_cells():
    """It is read with its figures and numbers, without being run."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] and cell["execution_count"] for cell in code)
    text = json.dumps(notebook)
    assert text.count("image/png") == 3 and "Traceback" not in text and "/tmp" not in text and "/home" not in text


def main():
    """Run the notebook in a folder and write what its cells give into it."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    folder = pathlib.Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    given = run_cells(code_of(notebook))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, (_, outputs)) in enumerate(zip(code, given, strict=True), 1):
        text = json.dumps(outputs).replace(f"{folder}/", "").replace(str(folder), ".")
        cell["outputs"], cell["execution_count"] = json.loads(text), number
        print(f"cell {number} of {len(code)}", file=sys.__stderr__, flush=True)
    NOTEBOOK.write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
