"""The names in the tables of `sat_tf`, read from its source text: TensorFlow is not imported, so this takes no time.

A table that text alone does not tell, made by a call or a loop or changed afterwards, is read by importing its module.
"""

import ast
import functools
import importlib.machinery
import importlib.util
import inspect
import pathlib
import sys

TABLES = {  # what a row is: the module and the name of the table
    "model": ("sat_tf.models", "MODELS"),
    "activation": ("sat_tf.activations", "ACTIVATIONS"),
    "method": ("sat_tf.methods.table", "METHODS"),
    "data set": ("sat_tf.data", "DATASETS"),
    "attack": ("sat_tf.attacks.table", "ATTACKS"),
    "augmentation": ("sat_tf.preprocess", "AUGMENTATIONS"),
    "policy": ("sat_tf.autoaugment", "POLICIES"),
    "evaluation preprocessing": ("sat_tf.preprocess", "EVALUATIONS"),
    "schedule": ("sat_tf.schedules", "SCHEDULES"),
    "optimizer": ("sat_tf.optim", "OPTIMIZERS"),
    "export format": ("sat_tf.export.formats", "FORMATS"),
}
CHANGES = ("clear", "pop", "popitem", "setdefault", "update")  # methods that change a table


class Unclear(Exception):
    """Text alone does not tell."""


@functools.cache
def names(kind: str, having: str | None = None) -> dict[str, str]:
    """Return `{name: first line of what it names}` of one table, in the table's order.

    Args:
      kind: a key of `TABLES`, such as "activation".
      having: only rows that give this keyword, such as "training" of attacks.
    """
    return {name: line for name, (line, given) in rows(*TABLES[kind]).items() if having is None or having in given}


@functools.cache
def settings(kind: str) -> dict[str, dict]:
    """Return `{name: {setting: default}}` of one table: what a row's call gives by keyword, and the keywords-only
    arguments of the function that it names; a default that text does not tell is `...`.
    """
    return {name: given for name, (_, given) in rows(*TABLES[kind]).items()}


def read(module: str, table: str) -> dict[str, str]:
    """Return `{name: line}` of a table, a dict by its name in a module."""
    return {name: line for name, (line, _) in rows(module, table).items()}


def rows(module: str, table: str) -> dict[str, tuple[str, dict]]:
    """Return `{name: (line, what is given)}` of a table, from the text of its module where that tells it.

    A row's line is its `about`, or the first line of the docstring of the function or class that it names or calls.
    What is given are the keywords of its call, the attributes that are not None; and see `settings`.
    """
    try:
        return _rows(module, ast.Name(table))
    except Unclear:
        content = getattr(importlib.import_module(module), table)
        return {name: (_line(row), _given(row)) for name, row in content.items()}


def _given(row):
    """Return what `_settings` does, from the row itself."""
    given = {name: value for name, value in getattr(row, "__dict__", {}).items() if value is not None}
    made = next((value for value in given.values() if inspect.isfunction(value)), row)
    if inspect.isfunction(made):
        parameters = inspect.signature(made).parameters.values()
        given |= {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
    return given


def _settings(module, node):
    """Return `{setting: default}` of a row: of its call, and of the function that it names or calls first with."""
    if isinstance(node, ast.Call):
        inner = _settings(module, node.args[0]) if node.args else {}
        return inner | {keyword.arg: _value(module, keyword.value) for keyword in node.keywords}
    if isinstance(node, (ast.Name, ast.Attribute)):
        try:
            return _settings(*_meant(module, node))
        except Unclear:
            return {}
    if isinstance(node, ast.FunctionDef):
        pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        return {argument.arg: _value(module, default) for argument, default in pairs}
    return {}


def _value(module, node):
    """Return the constant that a node is or names, else `...`."""
    try:
        while isinstance(node, (ast.Name, ast.Attribute)):
            module, node = _meant(module, node)
        return ast.literal_eval(node)
    except (Unclear, ValueError, TypeError):
        return ...


def _rows(module, node):
    """Return the rows of an expression: a dict, one of another name, or a union of such."""
    if isinstance(node, ast.Dict):
        rows = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                rows |= _rows(module, value)
            elif isinstance(key, ast.Constant):
                rows[key.value] = _text(module, value), _settings(module, value)
            else:
                raise Unclear
        return rows
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _rows(module, node.left) | _rows(module, node.right)
    if isinstance(node, (ast.Name, ast.Attribute)):
        return _rows(*_meant(module, node))
    raise Unclear


def _text(module, node):
    """Return the line of a row, "" where it has none."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return (ast.get_docstring(node) or "").partition("\n")[0]
    if isinstance(node, (ast.Name, ast.Attribute)):
        try:
            return _text(*_meant(module, node))
        except Unclear:
            return ""
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg == "about" and isinstance(keyword.value, ast.Constant):
                return keyword.value.value
        parts = [*node.args, *(keyword.value for keyword in node.keywords), node.func]
    else:
        parts = node.elts if isinstance(node, (ast.Tuple, ast.List)) else []
    return next(filter(None, (_text(module, part) for part in parts)), "")


def _line(row):
    """Return the line of a row as `_text` does, from the row itself."""
    if isinstance(getattr(row, "about", None), str):
        return row.about
    if isinstance(row, functools.partial):
        return _line(row.func)
    if isinstance(row, (tuple, list)):
        return next(filter(None, map(_line, row)), "")
    named = row if inspect.isroutine(row) or inspect.isclass(row) else type(row)
    return "" if named.__module__ == "builtins" else (inspect.getdoc(named) or "").partition("\n")[0]


def _meant(module, node):
    """Return the module and the node that a name, or a name of a module, stands for there."""
    if isinstance(node, ast.Name):
        return _bound(module, node.id)
    if isinstance(node, ast.Attribute):
        inside, what = _meant(module, node.value)
        if isinstance(what, ast.Module):
            return _bound(inside, node.attr)
    raise Unclear


def _bound(module, name):
    """Return what a module binds a name to, once and for all, as a module and a node: a value, a function, a module."""
    statements = [statement for statement in _tree(module).body if name in _touched(statement)]
    if len(statements) != 1:
        raise Unclear
    (statement,) = statements
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return module, statement
    if isinstance(statement, ast.ImportFrom) and not statement.level:
        (original,) = [alias.name for alias in statement.names if (alias.asname or alias.name) == name]
        try:
            return f"{statement.module}.{original}", _tree(f"{statement.module}.{original}")
        except Unclear:
            return _bound(statement.module, original)
    if isinstance(statement, ast.Import):
        (original,) = [alias.name for alias in statement.names if (alias.asname or alias.name) == name]
        return original, _tree(original)
    if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        if len(targets) == 1 and isinstance(targets[0], ast.Name):
            return module, statement.value
    raise Unclear


def _touched(statement):
    """Return the names that a statement at the top of a module binds or changes."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {alias.asname or alias.name for alias in statement.names}
    found = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
            node = node.func.value
        elif isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)):
            node = node.value if isinstance(node, ast.Subscript) else node
        else:
            continue
        found |= {node.id} if isinstance(node, ast.Name) else set()
    return found


@functools.cache
def _tree(module):
    return ast.parse(pathlib.Path(_spec(module).origin).read_text(encoding="utf-8"))


def _spec(module):
    """Return where a module lies, without importing it or the packages that it is in."""
    package = module.rpartition(".")[0]
    try:
        if not package or package in sys.modules:
            spec = importlib.util.find_spec(module)
        else:
            folders = _spec(package).submodule_search_locations or []
            spec = importlib.machinery.PathFinder.find_spec(module, folders)
    except (ModuleNotFoundError, ValueError):
        spec = None
    if spec is None or not (spec.origin or "").endswith(".py"):
        raise Unclear
    return spec
