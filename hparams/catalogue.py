"""The names in the tables of `sat_tf`, read from its source text: TensorFlow is not imported, so this takes no time."""

import ast
import functools
import importlib.util
import pathlib

TABLES = {
    "model": ("models.py", "MODELS"),
    "activation": ("activations.py", "ACTIVATIONS"),
    "method": ("methods.py", "METHODS"),
    "data set": ("data/__init__.py", "DATASETS"),
    "attack": ("attacks/table.py", "ATTACKS"),
    "augmentation": ("preprocess.py", "AUGMENTATIONS"),
    "policy": ("autoaugment.py", "POLICIES"),
    "evaluation preprocessing": ("preprocess.py", "EVALUATIONS"),
    "schedule": ("schedules.py", "SCHEDULES"),
    "optimizer": ("optim.py", "OPTIMIZERS"),
    "export format": ("export/formats.py", "FORMATS"),
}


@functools.cache
def names(kind, having=None):
    """Return `{name: first line of what it names}` of one table, in the table's order.

    Args:
      kind: a key of `TABLES`, such as "activation".
      having: only rows that give this keyword, such as "training" of attacks.
    """
    file, table = TABLES[kind]
    (package,) = importlib.util.find_spec("sat_tf").submodule_search_locations
    tree = ast.parse((pathlib.Path(package) / file).read_text(encoding="utf-8"))
    rows = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == table
    )
    return {
        key.value: _first_line(tree, package, value)
        for key, value in zip(rows.keys, rows.values, strict=True)
        if having is None or having in {keyword.arg for keyword in getattr(value, "keywords", ())}
    }


def _first_line(tree, package, value):
    """Return the first docstring line of the class or function that a row names, "" if it names none."""
    if isinstance(value, ast.Call) and value.args:  # Attack(pgd, training=PGD)
        value = value.args[0]
    if not isinstance(value, ast.Name):
        return ""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == value.id:
            return (ast.get_docstring(node) or "").partition("\n")[0]
        if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == value.id for a in node.names):
            source = pathlib.Path(package).parent.joinpath(*node.module.split(".")).with_suffix(".py")
            return _first_line(ast.parse(source.read_text(encoding="utf-8")), package, value)
    return ""
