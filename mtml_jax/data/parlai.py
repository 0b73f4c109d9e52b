"""Reads dialogue files: ParlAI's PersonaChat text becomes `Dialogue` records."""

import dataclasses
import hashlib
import os
from pathlib import Path

from mtml_jax.data.reading import ReadReport, decoded, excerpt
from mtml_jax.data.records import Dialogue, Turn

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
    """One dialogue while its lines are being read; `where` is the file and its first line."""

    where: str
    statements: list[str] = dataclasses.field(default_factory=list)
    turns: list[Turn] = dataclasses.field(default_factory=list)
    number: int = 0  # of the line before
    error: ValueError | None = None


def read_parlai(
    path: str | os.PathLike, *, skip_bad: bool = False
) -> tuple[list[Dialogue], ReadReport]:
    """Reads a file of dialogues in ParlAI's numbered text format.

    Every line is "N text". N = 1 begins a dialogue and N counts up within it.
    First come the speaker's statements ("your persona: ..."; lines of the
    partner's persona are ignored), then the turns: context, tab, response. Further
    columns (reward, candidates) are ignored. Runs of whitespace in a turn become
    one blank, and the context `__SILENCE__` becomes empty.

    Args:
      path: the file, UTF-8.
      skip_bad: leave out and count a dialogue with a malformed line instead of
        raising; lines before the first dialogue count as one.

    Returns:
      (dialogues, report). The dialogues are in file order, without speaker ids. Where
      one has the utterances of another and just one more at the end, they are the two
      sides of one conversation and share its id, a digest of what both have.

    Raises:
      ValueError: a line is not of this form, a dialogue has no turn, or the file
        has no dialogue; the message names file and line.
    """
    report = ReadReport(str(path), "dialogues")
    sides: list[_Side] = []
    with open(path, "rb") as lines:
        for line_number, line in enumerate(lines, start=1):
            if not line.removeprefix(_MARK).strip():
                continue
            where = f"{path}:{line_number}"
            begins = _begins(line)
            if begins or not sides:
                if not skip_bad:
                    _require_turns(sides[-1:])
                sides.append(_Side(where))
                report.found += 1
            side = sides[-1]
            if side.error is not None:
                continue
            try:
                _add_numbered(side, line, where)
            except ValueError as error:
                if not skip_bad:
                    raise
                side.error = error
    if not sides:
        raise ValueError(f"{path}:1: found an empty file, want dialogues of lines 'N text'")

    whole = []
    for side in sides:
        try:
            if side.error is not None:
                raise side.error
            _require_turns([side])
        except ValueError as error:
            if not skip_bad:
                raise
            report.skip_malformed(error)
        else:
            whole.append(side)
    report.read = len(whole)
    conversations = _conversation_ids([_utterances(side.turns) for side in whole])
    return [
        Dialogue(
            conversation=conversation,
            speaker="",
            statements=tuple(side.statements),
            turns=tuple(side.turns),
        )
        for conversation, side in zip(conversations, whole, strict=True)
    ], report


def split_file_names(split: str) -> list[str]:
    """The file names that a split may have in PersonaChat's release, best first.

    With the speaker's own persona before both speakers' and none, in its original
    wording before the revised one, and without candidates before with them.
    """
    return [name.format(split=split) for name in _PREFERRED]


def find_split(data_dir: str | os.PathLike, split: str) -> Path:
    """Finds the file of a split in a folder of ParlAI's PersonaChat release.

    Args:
      data_dir: the folder.
      split: train, valid or test.

    Returns:
      The path of the first of `split_file_names` that is there.

    Raises:
      FileNotFoundError: the folder has none of these files.
    """
    names = split_file_names(split)
    for name in names:
        path = Path(data_dir) / name
        if path.is_file():
            return path
    found = "no such folder" if not Path(data_dir).is_dir() else "none of the files"
    raise FileNotFoundError(
        f"{data_dir}: found {found}, "
        f"want one of {', '.join(names)} in the folder of --data_dir"
    )


def _begins(line: bytes) -> bool:
    """Whether a line is numbered 1, told from its bytes: the rest may be no text."""
    number = line.removeprefix(_MARK).rstrip(b"\r\n").partition(b" ")[0]
    return number.isdigit() and number.lstrip(b"0") == b"1"


def _add_numbered(side: _Side, line: bytes, where: str) -> None:
    """Adds a line to its dialogue."""
    text = decoded(line, where)
    number, _, body = text.partition(" ")
    if not (number.isascii() and number.isdigit()):
        raise ValueError(f"{where}: found {excerpt(text)} without a number, want 'N text'")
    if len(number) > _MAX_DIGITS:
        raise ValueError(
            f"{where}: found a line number of {len(number)} digits, want {side.number + 1}"
        )
    found, previous = int(number), side.number
    if found != previous + 1 and previous == 0:
        raise ValueError(f"{where}: found line number {found} first, want 1")
    if found != previous + 1:
        raise ValueError(
            f"{where}: found line number {found} after {previous}, "
            f"want {previous + 1}, or 1 for a new dialogue"
        )
    side.number = found
    _add_line(side, body, where)


def _add_line(side: _Side, body: str, where: str) -> None:
    """Adds the text behind a line's number to its dialogue."""
    if body.startswith((_OWN_PERSONA, _OTHER_PERSONA)):
        if side.turns:
            raise ValueError(
                f"{where}: found the persona line {excerpt(body)} after a turn, "
                "want all persona lines before the dialogue's first turn"
            )
        if body.startswith(_OWN_PERSONA):
            statement = body.removeprefix(_OWN_PERSONA).strip()
            if not statement:
                raise ValueError(
                    f"{where}: found a persona line without text, "
                    f"want '{_OWN_PERSONA} statement'"
                )
            side.statements.append(statement)
        return
    columns = body.split("\t")
    if len(columns) < 2:
        raise ValueError(
            f"{where}: found {excerpt(body)} without a tab, want 'context<TAB>response'"
        )
    context, response = (" ".join(column.split()) for column in columns[:2])
    if not response:
        raise ValueError(
            f"{where}: found an empty response to {excerpt(context)}, "
            "want 'context<TAB>response'"
        )
    side.turns.append(Turn(context="" if context == _SILENCE else context, response=response))


def _require_turns(sides: list[_Side]) -> None:
    for side in sides:
        if not side.turns:
            raise ValueError(
                f"{side.where}: found a dialogue without a turn, "
                "want at least one line 'N context<TAB>response'"
            )


def _utterances(turns: list[Turn]) -> tuple[str, ...]:
    """Everything said by both speakers, in order; silence is nothing said."""
    said = (text for turn in turns for text in (turn.context, turn.response))
    return tuple(text for text in said if text)


def _conversation_ids(sequences: list[tuple[str, ...]]) -> list[str]:
    """Digests of the utterances that both sides of each conversation have.

    Each side ends with its own speaker's reply, so one side lacks the last utterance
    of the other, and either may be that one. A fixed number of first utterances would
    not do: short dialogues may have fewer, and strangers open alike.
    """
    present = set(sequences)
    ids = []
    for shared in sequences:
        while shared[:-1] in present:
            shared = shared[:-1]
        ids.append(hashlib.sha256("\n".join(shared).encode()).hexdigest()[:16])
    return ids
