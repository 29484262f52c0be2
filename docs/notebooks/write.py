"""Write the notebooks from the scripts beside them, with what their cells show: python docs/notebooks/write.py NAME ...

A script is made of cells, `# %%` for code and `# %% [markdown]` for text.
"""

import ast
import base64
import contextlib
import io
import json
import os
import pathlib
import re
import sys
import tempfile

FOLDER = pathlib.Path(__file__).parent


def cells_of(script: str) -> list[tuple[str, str]]:
    """Return `(kind, text)` of a script's cells; kind is "code" or "markdown"."""
    parts = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)[1:]
    cells = []
    for kind, text in zip(parts[::2], parts[1::2], strict=True):
        if "markdown" in kind:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.splitlines())
            cells.append(("markdown", text.strip()))
        else:
            cells.append(("code", re.sub(r" *# noqa.*", "", text).strip()))
    return cells


def run(cells: list[tuple[str, str]]) -> list[list[dict]]:
    """Run the code of some cells in one scope; return what each shows, as a notebook holds it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    scope, shown = {"__name__": "__main__"}, []
    for kind, text in cells:
        outputs = []
        if kind == "code":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                value = _run_cell(text, scope)
            if printed.getvalue():
                outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(printed.getvalue())})
            outputs += [_display({"image/png": _png(plt.figure(number))}) for number in plt.get_fignums()]
            plt.close("all")
            if value is not None:
                html = {"text/html": _lines(value._repr_html_())} if hasattr(value, "_repr_html_") else {}
                outputs.append(_display({**html, "text/plain": _lines(repr(value))}))
        shown.append(outputs)
    return shown


def notebook(cells: list[tuple[str, str]], shown: list[list[dict]]) -> dict:
    """Return a notebook (nbformat 4) of cells and what they show."""
    made, count = [], 0
    for number, ((kind, text), outputs) in enumerate(zip(cells, shown, strict=True)):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": _lines(text)}
        if kind == "code":
            count += 1
            cell |= {"execution_count": count, "outputs": outputs}
        made.append(cell)
    language = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {
        "cells": made,
        "metadata": language | {"language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _run_cell(text, scope):
    """Run a cell; return the value of its last line where that is an expression."""
    tree = ast.parse(text)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), scope)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), scope)


def _display(content):
    return {"output_type": "display_data", "metadata": {}, "data": content}


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=70, bbox_inches="tight")
    return base64.b64encode(buffer.getvalue()).decode()


def _lines(text):
    return text.splitlines(keepends=True)


@contextlib.contextmanager
def _working_in(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def main(names: list[str]) -> None:
    """Write the notebooks of some scripts, by their names."""
    for name in names or sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "write"):
        cells = cells_of((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as folder, _working_in(folder):
            shown = run(cells)
        text = json.dumps(notebook(cells, shown), indent=1, ensure_ascii=False) + "\n"
        (FOLDER / f"{name}.ipynb").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main(sys.argv[1:])
