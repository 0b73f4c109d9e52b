"""Write the blocks of a report as one self-contained HTML file."""

import base64
import itertools
from collections.abc import Mapping, Sequence

from experiments.app.html import escape
from experiments.report.page import Block, Code, Figure, Heading, Said, Table, Text

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --quiet: #565656; --page: #fdfdfc;
  --line: #d9d9d6; --soft: #f1f1ee; --mark: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e6; --quiet: #a9a9a6; --page: #161615; --line: #3a3a38; --soft: #232321;
    --mark: #56b4e9; }
  figure img { filter: brightness(.92); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.1rem 4rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.75rem 0 .25rem; }
p { max-width: 44rem; }
nav { font-size: .9rem; columns: 2 14rem; } nav a { display: block; padding: .15rem 0; }
a { color: var(--mark); }
pre { background: var(--soft); padding: .6rem .8rem; border-radius: .4rem; white-space: pre-wrap; }
figure { margin: 1rem 0; } figure img { display: block; width: 100%; max-width: 40rem;
  height: auto; background: #fff; border-radius: .4rem; }
figcaption { color: var(--quiet); font-size: .9rem; max-width: 40rem; margin-top: .35rem; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top;
  text-align: left; overflow-wrap: normal; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right;
  font-variant-numeric: tabular-nums; }
.numbers tbody th { white-space: nowrap; } .numbers td { white-space: nowrap; }
.words td { min-width: 10rem; }
thead th { border-bottom: 2px solid var(--line); }
tbody th { font-weight: 600; position: sticky; left: 0; background: var(--page); }
td small { display: block; color: var(--quiet); }
@media (max-width: 40rem) {
  .numbers tbody th { white-space: normal; min-width: 5.5rem; max-width: 7.5rem; }
}
dl.said { margin: .5rem 0; } .said dt { float: left; clear: left; width: 5.5rem;
  color: var(--quiet); } .said dd { margin: 0 0 .2rem 5.5rem; }
"""


def to_html(title: str, blocks: Sequence[Block], pictures: Mapping[str, bytes]) -> str:
    """Writes the blocks of a report as a page; `pictures` maps names to PNG files."""
    number = itertools.count(1)
    links, parts = [], []
    for block in blocks:
        if isinstance(block, Heading) and block.level == 2:
            place = f"s{next(number)}"
            links.append(f'<a href="#{place}">{escape(block.text)}</a>')
            parts.append(f'<h2 id="{place}">{escape(block.text)}</h2>')
        else:
            parts.append(_html(block, pictures))
        if isinstance(block, Heading) and block.level == 1:
            parts.append("{links}")
    body = "\n".join(parts).replace("{links}", f"<nav>{''.join(links)}</nav>", 1)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n{body}\n"
        "</body></html>\n"
    )


def _html(block, pictures):
    match block:
        case Heading(text, level):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
        case Figure(file, caption):
            data = base64.b64encode(pictures[file]).decode("ascii")
            return (
                f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
        case Said(utterances):
            lines = (f"<dt>{escape(w)}</dt><dd>{escape(t)}</dd>" for w, t in utterances)
            return f'<dl class="said">{"".join(lines)}</dl>'
        case Table(head, rows, words):
            top = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
            lines = ""
            for row in rows:
                cells = "".join(f"<td>{_cell(cell)}</td>" for cell in row[1:])
                lines += f'<tr><th scope="row">{_cell(row[0])}</th>{cells}</tr>'
            return (
                f'<div class="wide"><table class="{"words" if words else "numbers"}">'
                f"<thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"
            )


def _cell(cell):
    if isinstance(cell, str):
        return escape(cell)
    return escape(cell.text) + (f"<small>{escape(cell.small)}</small>" if cell.small else "")
