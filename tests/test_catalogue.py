"""Tables read from text, in every way that a table may be written, and by importing only where text does not tell."""

import sys
import textwrap

import pytest

from sat_tf import hparams
from sat_tf.hparams import catalogue

ROOM = {  # a package whose import is an error: what is right was read from its text
    "room_of_tables/__init__.py": """
        from room_of_tables.small import VARIANTS as SMALL
        from room_of_tables import large

        VARIANTS = {**SMALL, **large.VARIANTS}
        raise ImportError("too heavy")
    """,
    "room_of_tables/small.py": """
        import dataclasses

        @dataclasses.dataclass
        class Variant:
            '''A network.'''
            about: str = ""

        VARIANTS: dict = {"s1": Variant(about="One layer."), "s2": Variant()}
    """,
    "room_of_tables/large.py": """
        from room_of_tables import small as tiny
        VARIANTS = tiny.VARIANTS | {"l1": tiny.Variant(about="Many.")}
    """,
}
DEFINITIONS = """
    import functools
    import room_of_tables
    import room_of_tables as room
    from room_of_tables import small

    def one():
        '''Do one thing.

        At length.
        '''

    class Two:
        '''Be two.'''

    def bare(): pass

    def make(function, number=0): return function

    another = one
"""
READ_FROM_TEXT = {
    '{"a": one, "b": Two, "c": bare}': {"a": "Do one thing.", "b": "Be two.", "c": ""},
    "{}": {},
    '{"a": another, "b": Two()}': {"a": "Do one thing.", "b": "Be two."},
    '{"a": functools.partial(one, 3), "b": (one, True), "c": make(number=2, function=Two)}': {
        "a": "Do one thing.",
        "b": "Do one thing.",
        "c": "Be two.",
    },
    '{"a": lambda: 3, "b": None, "c": 4, "d": "text", "e": missing.thing, "f": make(1)}': dict.fromkeys("abcdef", ""),
    '{"a": one, **{"b": Two}, **room_of_tables.VARIANTS}': {
        "a": "Do one thing.",
        "b": "Be two.",
        "s1": "One layer.",
        "s2": "A network.",
        "l1": "Many.",
    },
    '{"a": one} | small.VARIANTS': {"a": "Do one thing.", "s1": "One layer.", "s2": "A network."},
    "room.large.VARIANTS": {"s1": "One layer.", "s2": "A network.", "l1": "Many."},
}
IMPORTED = {  # what follows the definitions -> the rows
    'TABLE = {name: one for name in ("a", "b")}': {"a": "Do one thing.", "b": "Do one thing."},
    "TABLE = dict(a=one, b=Two(), c=3, d=lambda: 3, e=functools.partial(Two), f=[one])": {
        "a": "Do one thing.",
        "b": "Be two.",
        "c": "",
        "d": "",
        "e": "Be two.",
        "f": "Do one thing.",
    },
    'TABLE = {"a": one}\nTABLE["b"] = Two': {"a": "Do one thing.", "b": "Be two."},
    'TABLE = {"a": one}\nTABLE.update(b=Two)': {"a": "Do one thing.", "b": "Be two."},
    'TABLE = {"a": one}\nTABLE |= {"b": Two}': {"a": "Do one thing.", "b": "Be two."},
    'TABLE = {"a": one, "b": Two}\ndel TABLE["a"]': {"b": "Be two."},
    'if True:\n    TABLE = {"a": one}\nelse:\n    TABLE = {"b": one}': {"a": "Do one thing."},
    'TABLE = {"a" + "b": one}': {"ab": "Do one thing."},
    'TABLE = OTHER = {"a": one}\nOTHER = {}': {"a": "Do one thing."},
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes modules by their path and forgets them after the test."""
    monkeypatch.syspath_prepend(tmp_path)

    def modules(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(textwrap.dedent(text))

    yield modules
    catalogue._tree.cache_clear()
    for name in [name for name in sys.modules if name.startswith(("room_of_tables", "module_of_a_table"))]:
        del sys.modules[name]


@pytest.mark.parametrize("table", READ_FROM_TEXT)
@pytest.mark.parametrize("declared", ["TABLE = ", "TABLE: dict[str, object] = "])
def test_from_text(write, table, declared):
    write({**ROOM, "module_of_a_table.py": textwrap.dedent(DEFINITIONS) + declared + table})
    found = catalogue.read("module_of_a_table", "TABLE")
    assert list(found.items()) == list(READ_FROM_TEXT[table].items())
    assert "module_of_a_table" not in sys.modules and "room_of_tables" not in sys.modules


@pytest.mark.parametrize("table", IMPORTED)
def test_by_importing_where_text_does_not_tell(write, table):
    definitions = "\n".join(line for line in textwrap.dedent(DEFINITIONS).splitlines() if "room_of" not in line)
    write({"module_of_a_table.py": f"{definitions}\n{table}\n"})
    assert list(catalogue.read("module_of_a_table", "TABLE").items()) == list(IMPORTED[table].items())
    assert "module_of_a_table" in sys.modules


@pytest.mark.parametrize("kind", hparams.TABLES)
def test_text_and_import_say_the_same(kind):
    module, table = hparams.TABLES[kind]
    found = catalogue._rows(module, catalogue.ast.Name(table))
    rows = {name: line for name, (line, _) in found.items()}  # without an import: Unclear would be raised
    content = getattr(catalogue.importlib.import_module(module), table)
    assert rows == hparams.names(kind) == {name: catalogue._line(row) for name, row in content.items()}
