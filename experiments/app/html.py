"""Write what the page shows as HTML, in which no text of users or models is markup."""

import html
import unicodedata
from collections.abc import Sequence
from typing import Any

from experiments.ratings.store import CRITERIA, Task
from experiments.ratings.tables import cell

# Section 3.3 of the paper, in its words.
DEFINITIONS = {
    "consistency": (
        "how much of the persona statements the reply reflects",
        ("contradicts the persona", "neutral", "reflects the persona"),
        "the amount of persona information corresponding to the persona statements that is "
        "reflected in the reply; 1 where it accurately reflects information from them, −1 where "
        "it contradicts them",
    ),
    "fluency": (
        "grammar, spelling and phrasing",
        ("several fluency issues", "one or two fluency errors", "perfectly fluent"),
        "any grammatical, spelling and phrasing issues",
    ),
    "coherence": (
        "how appropriate the reply is to the dialogue so far",
        ("incoherent, illogical", "moderately coherent", "coherent in its context"),
        "the appropriateness of the reply with respect to the dialogue history; −1 where it is "
        "contextually illogical",
    ),
}
PRIVACY = (
    '<p class="place">Give dialogues of the speaker to adapt to: JSON lines, WhatsApp\'s text or '
    "Telegram's JSON, ideally five or more. They are read on the machine that serves this page, "
    "stay in its memory, and are sent nowhere else.</p>"
)
DOWNLOAD = (
    '<p class="after"><a class="download" href="ratings.csv" download>Download as CSV</a></p>'
)
_SHOWN = 8  # utterances; earlier ones are folded away
# Templates of the page act on these characters, but not on their entities.
_TEMPLATE = str.maketrans({c: f"&#{ord(c)};" for c in "{}$`"})


def escape(text: str) -> str:
    """Escapes markup, templates, and characters that hide or reverse others."""
    kept = "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co") else "\ufffd"
        for c in str(text).replace("\r\n", "\n")
    )
    return html.escape(kept).translate(_TEMPLATE)


def message(text: str, *, wrong: bool = False) -> str:
    """Returns a message as a paragraph; empty if there is none."""
    if not text:
        return ""
    kind, role = ("wrong", "alert") if wrong else ("note", "status")
    return f'<p class="message {kind}" role="{role}">{escape(text)}</p>'


def said(utterances: Sequence[tuple[str, str]]) -> str:
    """Shows utterances in order, those of "self" on the right and of "other" on the left."""
    bubbles = [
        f'<li class="{"self" if who == "self" else "other"}">'
        f'<span class="who">{"speaker" if who == "self" else "other"}</span> {escape(text)}</li>'
        for who, text in utterances
    ]
    older, shown = (
        f'<ol class="said">{"".join(some)}</ol>' for some in (bubbles[:-_SHOWN], bubbles[-_SHOWN:])
    )
    if len(bubbles) <= _SHOWN:
        return shown
    return f"<details><summary>{len(bubbles) - _SHOWN} earlier</summary>{older}</details>{shown}"


def chats(said_to: tuple[Sequence[str], Sequence[str]], speaker: str, *, waiting: bool) -> str:
    """Shows the chats with the initial and the adapted model next to each other."""
    parts = []
    for title, texts in zip(("Initial", f"Adapted to {speaker}"), said_to):
        bubbles = [
            f'<li class="{"self" if n % 2 else "other"}">'
            f"{escape(text) or '<em>(nothing)</em>'}</li>"
            for n, text in enumerate(texts)
        ]
        if waiting and len(texts) % 2:
            bubbles.append('<li class="self">…</li>')
        parts.append(f'<div><h3>{escape(title)}</h3><ol class="said">{"".join(bubbles)}</ol></div>')
    return f'<div class="chats" aria-live="polite">{"".join(parts)}</div>'


def beliefs(initial: str, adapted: str) -> str:
    """Shows the reconstructed personas before and after adapting."""
    cells = "".join(
        f"<div><h3>{title}</h3><p>{escape(text) or '(nothing)'}</p></div>"
        for title, text in (("Initial", initial), ("Adapted", adapted))
    )
    return f'<div class="chats">{cells}</div>'


def task(found: Task) -> str:
    """Shows a reply to rate, with the persona and the dialogue before it."""
    statements = "".join(f"<li>{escape(text)}</li>" for text in found.statements)
    if found.utterances:
        before = said(found.utterances)
    elif found.context and found.context != "<silence>":
        before = f'<p class="context">… {escape(found.context)}</p>'
    else:
        before = '<p class="context">(nothing yet: the speaker opens the dialogue)</p>'
    persona = f"<ul>{statements}</ul>" if statements else "<p>(none are known)</p>"
    reply = escape(found.text) if found.text.strip() else "<em>(an empty reply)</em>"
    return (
        f'<div class="task" data-reply="{found.reply}" data-place="{found.place}">'
        f'<div class="persona"><h3>Who the speaker is</h3>{persona}</div>'
        f'<div class="before"><h3>The dialogue so far</h3>{before}'
        f'<h3>The reply to rate</h3><p class="reply">{reply}</p></div></div>'
    )


def progress(rater: str, found: Task) -> str:
    """Shows a rater's progress."""
    share = 100 * found.rated / found.count
    again = " · you have rated this one; saving changes it" if found.scores else ""
    return (
        f'<div class="progress" role="progressbar" aria-valuenow="{found.rated}" '
        f'aria-valuemax="{found.count}"><div style="width:{share:.1f}%"></div></div>'
        f'<p class="place"><b>{found.rated} of {found.count}</b> rated by {escape(rater)} · '
        f"reply {found.place + 1}{again}</p>"
    )


def criteria() -> str:
    """Shows the paper's definitions of the criteria, and the keys."""
    rows = "".join(
        f"<p><b>{name.capitalize()}</b>: {text}.</p>" for name, (_, _, text) in DEFINITIONS.items()
    )
    return (
        f'<details class="criteria"><summary>What the criteria mean, and the keys</summary>{rows}'
        "<p>Keys: <kbd>1</kbd> <kbd>2</kbd> <kbd>3</kbd> choose −1, 0, 1 for the marked criterion "
        "and go on to the next; <kbd>↑</kbd> <kbd>↓</kbd> move the mark; <kbd>Enter</kbd> saves; "
        "<kbd>Backspace</kbd> goes back. It is hidden which system replied.</p></details>"
    )


def results(report: dict[str, Any]) -> str:
    """Shows the tables of `ratings.tables.summarise`."""
    made_up = [note for note in report["notes"] if note.startswith("GENERATED")]
    parts = [message(note, wrong=True) for note in made_up]
    columns = [*(name.capitalize() for name in CRITERIA), "Ratings"]
    for number, table in enumerate(report["tables"]):
        rows = [
            (row["system"], *(_cell(row["scores"][name]) for name in CRITERIA), f"{row['ratings']:,}")
            for row in table["rows"]
        ]
        parts.append(_table(escape(table["title"]), f"table-{number}", columns, rows))
    agreement = [
        (name.capitalize(), _cell(found), f"{found['units']:,}")
        for name, found in report["alpha"].items()
    ]
    title = "Agreement (Krippendorff's alpha)"
    parts.append(_table(title, "alpha", ["Alpha", "Replies"], agreement))
    raters = "".join(
        f"<li>{escape(r['name'])}: {r['ratings']:,} of {report['replies']:,}"
        f"{' <b>(generated)</b>' if r['generated'] else ''}</li>"
        for r in report["raters"]
    )
    parts.append(f"<h3>Raters</h3><ul>{raters or '<li>none yet</li>'}</ul>")
    notes = [note for note in report["notes"] if note not in made_up]
    parts += [f'<p class="place">{escape(note)}</p>' for note in notes]
    return f'<div class="results">{"".join(parts)}</div>'


def _table(title, name, columns, rows):
    """Formats a table of numbers; only the first cell of a row is not yet markup."""
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for first, *cells in rows
    )
    return (
        f'<h3>{title}</h3><div class="wide"><table class="numbers" id="{name}"><thead><tr>'
        f"<th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(score):
    value, _, interval = cell(score).partition(" ")
    return f"<b>{value}</b> <small>{interval}</small>" if interval else value
