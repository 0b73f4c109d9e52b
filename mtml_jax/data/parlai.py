"""Reads dialogues from ParlAI's numbered text files, as of PersonaChat."""

import dataclasses
import hashlib
import os
from pathlib import Path

from mtml_jax.data.reading import ReadReport, decoded, excerpt
from mtml_jax.data.records import Dialogue, Turn, utterances

_MARK = b"\xef\xbb\xbf"  # the byte order mark
_MAX_DIGITS = 9  # of a line number
_SILENCE = "__SILENCE__"
_OWN_PERSONA = "your persona:"
_OTHER_PERSONA = "partner's persona:"
_PREFERRED = [
    f"{{split}}_{persona}_{wording}{candidates}.txt"
    for persona in ("self", "both", "none")
    for wording in ("original", "revised")
    for candidates in ("_no_cands", "")
]


@dataclasses.dataclass
class _Side:
    """A dialogue whose lines are being read; `where` names the file and the first line."""

    where: str
    statements: list[str] = dataclasses.field(default_factory=list)
    turns: list[Turn] = dataclasses.field(default_factory=list)
    number: int = 0  # of the previous line
    error: ValueError | None = None


def read_parlai(
    path: str | os.PathLike, *, skip_bad: bool = False
) -> tuple[list[Dialogue], ReadReport]:
    """Reads a file of dialogues in ParlAI's numbered text format.

    Every line is "N text". N = 1 begins a dialogue, and N counts up within it. The
    speaker's statements come first ("your persona: ..."; the partner's persona is
    ignored), then the turns: context, tab, response. Further columns (reward,
    candidates) are ignored. Runs of whitespace in a turn become one blank, and the
    context `__SILENCE__` becomes empty.

    Args:
      path: the file, UTF-8.
      skip_bad: skip and count dialogues with a malformed line instead of raising;
        lines before the first dialogue count as one dialogue.

    Returns:
      (dialogues, report). The dialogues are in file order, without speaker ids. If one
      dialogue has the utterances of another and exactly one more at the end, the two are
      the sides of one conversation and share its id, a digest of the common utterances.

    Raises:
      ValueError: a line does not have this form, a dialogue has no turn, or the file
        has no dialogue; the message names file and line.
    """
    report = ReadReport(str(path), "dialogues")
    sides: list[_Side] = []
    with open(path, "rb") as lines:
        for line_number, line in enumerate(lines, start=1):
            if not line.removeprefix(_MARK).strip():
                continue
            where = f"{path}:{line_number}"
            if _begins(line) or not sides:
                sides.append(_Side(where))
            if sides[-1].error is None:
                try:
                    _add_numbered(sides[-1], line, where)
                except ValueError as error:
                    sides[-1].error = error
    if not sides:
        raise ValueError(f"{path}:1: expected dialogues of lines 'N text', got an empty file")
    report.found = len(sides)
    whole = []
    for side in sides:
        if side.error is None and not side.turns:
            side.error = ValueError(
                f"{side.where}: expected at least one line 'N context<TAB>response' in a "
                "dialogue, got a dialogue without a turn"
            )
        if side.error is None:
            whole.append(side)
        elif skip_bad:
            report.skip_malformed(side.error)
        else:
            raise side.error
    report.read = len(whole)
    conversations = _conversation_ids([utterances(side.turns) for side in whole])
    return [
        Dialogue(conversation, "", tuple(side.statements), tuple(side.turns))
        for conversation, side in zip(conversations, whole, strict=True)
    ], report


def split_file_names(split: str) -> list[str]:
    """Returns the file names that a split may have in PersonaChat's release, best first.

    Files with the speaker's own persona precede those with both personas or none, the
    original wording precedes the revised one, and files without candidates come first.
    """
    return [name.format(split=split) for name in _PREFERRED]


def find_split(data_dir: str | os.PathLike, split: str) -> Path:
    """Returns the first of `split_file_names` that exists in a folder.

    Raises:
      FileNotFoundError: the folder has none of these files.
    """
    names = split_file_names(split)
    for name in names:
        path = Path(data_dir) / name
        if path.is_file():
            return path
    got = "no such folder" if not Path(data_dir).is_dir() else "none of these files"
    raise FileNotFoundError(
        f"{data_dir}: expected one of {', '.join(names)} in the folder of --data_dir, got {got}"
    )


def _begins(line: bytes) -> bool:
    """Whether a line is numbered 1; it reads bytes, as the rest may not be valid text."""
    number = line.removeprefix(_MARK).rstrip(b"\r\n").partition(b" ")[0]
    return number.isdigit() and number.lstrip(b"0") == b"1"


def _add_numbered(side: _Side, line: bytes, where: str) -> None:
    """Adds a line to its dialogue."""
    text = decoded(line, where)
    number, _, body = text.partition(" ")
    if not (number.isascii() and number.isdigit()):
        raise ValueError(f"{where}: expected 'N text', got {excerpt(text)} without a number")
    if len(number) > _MAX_DIGITS:
        raise ValueError(
            f"{where}: expected {side.number + 1}, got a line number of {len(number)} digits"
        )
    got, previous = int(number), side.number
    if got != previous + 1 and previous == 0:
        raise ValueError(f"{where}: expected line number 1 first, got line number {got}")
    if got != previous + 1:
        raise ValueError(
            f"{where}: expected line number {previous + 1}, or 1 for a new dialogue, "
            f"got line number {got} after {previous}"
        )
    side.number = got
    _add_line(side, body, where)


def _add_line(side: _Side, body: str, where: str) -> None:
    if body.startswith((_OWN_PERSONA, _OTHER_PERSONA)):
        if side.turns:
            raise ValueError(
                f"{where}: expected all persona lines before the dialogue's first turn, "
                f"got {excerpt(body)} after a turn"
            )
        if body.startswith(_OWN_PERSONA):
            statement = body.removeprefix(_OWN_PERSONA).strip()
            if not statement:
                wanted = f"'{_OWN_PERSONA} statement'"
                raise ValueError(f"{where}: expected {wanted}, got a persona line without text")
            side.statements.append(statement)
        return
    columns = body.split("\t")
    if len(columns) < 2:
        raise ValueError(
            f"{where}: expected 'context<TAB>response', got {excerpt(body)} without a tab"
        )
    context, response = (" ".join(column.split()) for column in columns[:2])
    if not response:
        raise ValueError(
            f"{where}: expected 'context<TAB>response', got an empty response to {excerpt(context)}"
        )
    side.turns.append(Turn(context="" if context == _SILENCE else context, response=response))


def _conversation_ids(sequences: list[tuple[str, ...]]) -> list[str]:
    """Returns digests of the utterances that both sides of each conversation share.

    Each side ends with its own speaker's reply, so one of the two sides lacks the other's
    last utterance. Comparing a fixed number of first utterances would not work: short
    dialogues may have fewer, and unrelated conversations may begin with the same ones.
    """
    present = set(sequences)
    ids = []
    for shared in sequences:
        while shared[:-1] in present:
            shared = shared[:-1]
        ids.append(hashlib.sha256("\n".join(shared).encode()).hexdigest()[:16])
    return ids
