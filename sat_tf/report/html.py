"""A report as one file of HTML that needs nothing else: no network, no other file; images are inside."""

import base64
import html
import re
from collections.abc import Iterator

_STYLE = """\
:root { color-scheme: light dark; --line: #d0d7de; --soft: #f6f8fa; --text: #1f2328; --page: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --line: #3d444d; --soft: #151b23; --text: #e6edf3; --page: #0d1117; } }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1, h2, h3 { line-height: 1.25; margin: 2rem 0 .8rem; }
h2 { border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }
th { background: var(--soft); }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
code, pre { background: var(--soft); border-radius: 4px; font-size: .9em; padding: .1em .3em; }
pre { padding: .8rem; overflow-x: auto; }
img { max-width: 100%; height: auto; background: #ffffff; }
figure { margin: 1rem 0; }
figcaption { font-size: .85rem; opacity: .8; }"""


def page(text: str, images: dict[str, bytes]) -> str:
    """Return a report's Markdown as a page of HTML.

    Args:
      text: Markdown of headings, paragraphs, lists, tables, blocks of code and images, as reports are written in.
      images: PNG files by the paths that the text has.
    """
    title = text.partition("\n")[0].lstrip("# ")
    body = "\n".join(_blocks(text.splitlines(), images))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{html.escape(title)}</title>\n'
        f"<style>\n{_STYLE}\n</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _blocks(lines, images) -> Iterator[str]:
    """Give each block of Markdown lines as HTML."""
    place = 0
    while place < len(lines):
        line = lines[place]
        kind = _kind(line)
        end = place + 1
        if kind == "code":
            while end < len(lines) and not lines[end].startswith("```"):
                end += 1
            yield f"<pre><code>{html.escape(chr(10).join(lines[place + 1 : end]))}</code></pre>"
            end += 1
        elif kind in ("table", "list", "text"):
            while end < len(lines) and _goes_on(kind, lines[end]):
                end += 1
            yield _MAKE[kind](lines[place:end], images)
        elif kind == "heading":
            level = len(line) - len(line.lstrip("#"))
            words = line.lstrip("# ")
            yield f'<h{level} id="{_anchor(words)}">{_inline(words)}</h{level}>'
        place = end


def _kind(line):
    if not line.strip():
        return "nothing"
    starts = {"```": "code", "#": "heading", "|": "table", "* ": "list"}
    return next((kind for start, kind in starts.items() if line.startswith(start)), "text")


def _goes_on(kind, line):
    if kind == "list":
        return bool(line.strip()) and (line.startswith(("* ", "  ")))
    return _kind(line) == kind


def _table(lines, _):
    header, _, *rows = [_cells(line) for line in lines]
    head = "".join(f"<th>{_inline(cell)}</th>" for cell in header)
    body = "\n".join(f"<tr>{''.join(f'<td>{_inline(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _cells(line):
    """Return the cells of a row; an escaped bar is one of a cell."""
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def _list(lines, _):
    """Return a list whose items may have lines that go on, and a list of their own."""
    items = []
    for line in lines:
        if line.startswith("* "):
            items.append([line[2:], []])
        elif line.startswith("  * "):
            items[-1][1].append(line[4:])
        else:
            items[-1][0] += f" {line.strip()}"
    inner = ["".join(f"<li>{_inline(each)}</li>" for each in below) for _, below in items]
    texts = [
        _inline(text) + (f"<ul>{below}</ul>" if below else "") for (text, _), below in zip(items, inner, strict=True)
    ]
    return "<ul>\n" + "\n".join(f"<li>{text}</li>" for text in texts) + "\n</ul>"


def _text(lines, images):
    image = re.fullmatch(r"!\[(.*)\]\((.+)\)", " ".join(lines))
    if not image:
        return f"<p>{_inline(' '.join(lines))}</p>"
    words, path = html.escape(image[1]), image[2]
    data = base64.b64encode(images[path]).decode()
    caption = f"<figcaption>{words}</figcaption>" if words else ""
    return f'<figure><img alt="{words}" src="data:image/png;base64,{data}">{caption}</figure>'


_MAKE = {"table": _table, "list": _list, "text": _text}


def _inline(text):
    """Return a line with its code, bold words and links; all else is shown as it is."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        f"<code>{html.escape(part[1:-1])}</code>" if part.startswith("`") else _words(part) for part in parts
    )


def _words(text):
    text = html.escape(text, quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    text = re.sub(r"(?<!\*)\*(\w[^*]*?)\*(?!\*)", r"<em>\1</em>", text)
    return re.sub(r"\[([^\]]+)\]\((#[\w-]+)\)", r'<a href="\2">\1</a>', text)


def _anchor(words):
    return re.sub(r"[^\w-]", "", words.lower().replace(" ", "-"))
