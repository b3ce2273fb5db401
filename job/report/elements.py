"""A page for a browser that needs nothing but itself: no network, light and dark, readable on a phone.

Guarantees that whatever is shown is text: nothing in it can become markup.
"""

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --line: #8884; --mark: #2a78; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; white-space: nowrap; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; }
tr { border-bottom: 1px solid var(--line); } tr.marked { background: var(--mark); }
code { overflow-wrap: anywhere; } .warning { border-left: 4px solid #c60; padding-left: .75rem; }
"""


def page(title: str, body: Iterable[str]) -> str:
    """Return a page with a title and parts made by the functions below."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    """Return a heading."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; of kind ``warning`` it stands out."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def code(text: str) -> str:
    """Return a command or a path."""
    return f"<p><code>{escape(text)}</code></p>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], marked: Iterable[int] = ()) -> str:
    """Return a table; some rows, counted from 0, may be marked."""
    chosen = set(marked)
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for number, row in enumerate(rows):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        lines.append(f'<tr class="marked">{cells}</tr>' if number in chosen else f"<tr>{cells}</tr>")
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"
