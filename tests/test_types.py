"""Every public function, method and property says the types of what it takes and of what it returns."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = [
    file for room in ("sat_tf", "resnet", "efficientnet", "hparams") for file in sorted((ROOT / room).rglob("*.py"))
]


def functions_of(node, inside=""):
    """Yield `(name, function)` of a module or class; functions within functions are nobody's but theirs."""
    for inner in node.body:
        if isinstance(inner, ast.ClassDef) and is_public(inner.name):
            yield from functions_of(inner, f"{inside}{inner.name}.")
        elif isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)) and is_public(inner.name):
            yield inside + inner.name, inner


def is_public(name):
    """Say whether callers write a function's name, or call it through its class or object."""
    return not name.startswith("_") or name in ("__init__", "__call__")


def untyped(source):
    """Return what lacks a type in a file's public functions: a line each."""
    found = []
    for name, function in functions_of(ast.parse(source)):
        given = function.args
        parameters = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
        missing = [p.arg for p in parameters if p and not p.annotation and p.arg not in ("self", "cls")]
        missing += [] if function.returns else ["what it returns"]
        if missing:
            found.append(f"line {function.lineno}, {name}: {', '.join(missing)}")
    return found


def test_what_lacks_a_type_is_found():
    source = """
def good(a: int, *rest: int, key: str = "", **more: int) -> None:
    def inner(x): ...
def _private(x): ...
def bad(a, *rest, key=1, **more): ...
class Some:
    def __init__(self, a) -> None: ...
    def __eq__(self, other): ...
    @property
    def size(self): ...
    @classmethod
    def made(cls, a: int) -> "Some": ...
class _Private:
    def some(self, x): ...
"""
    assert untyped(source) == [
        "line 5, bad: a, rest, key, more, what it returns",
        "line 7, Some.__init__: a",
        "line 10, Some.size: what it returns",
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_public_functions_have_types(file):
    found = untyped(file.read_text(encoding="utf-8"))
    assert not found, f"Types are missing in {file.relative_to(ROOT)}:\n" + "\n".join(found)
