"""The cells and tables of Markdown."""

import json
from typing import Any


def text(value: Any) -> str:
    """Return `value` as a table cell: numbers in full, so that a recipe can be repeated exactly."""
    written = value if isinstance(value, str) else "none" if value is None else json.dumps(value)
    return written.replace("|", "\\|").replace("\n", " ")


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
