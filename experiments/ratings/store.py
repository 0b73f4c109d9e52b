"""Items and ratings in one SQLite file, which several raters write at once."""

import contextlib
import datetime
import json
import pathlib
import random
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from experiments.ratings.items import Item

CRITERIA = ("consistency", "fluency", "coherence")
_FORMAT = 1
_APPLICATION = 0x6D746D6C  # "mtml", in the file's header
_LONGEST_NAME = 40
_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE item (
  id INTEGER PRIMARY KEY, persona TEXT NOT NULL, statements TEXT NOT NULL,
  conversation TEXT NOT NULL, turn INTEGER NOT NULL, utterances TEXT NOT NULL,
  context TEXT NOT NULL
) STRICT;
CREATE TABLE reply (
  id INTEGER PRIMARY KEY, item INTEGER NOT NULL REFERENCES item, system TEXT NOT NULL,
  shots INTEGER NOT NULL, text TEXT NOT NULL, UNIQUE (item, system, shots)
) STRICT;
CREATE TABLE rater (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, generated INTEGER NOT NULL, at TEXT NOT NULL
) STRICT;
CREATE TABLE rating (
  id INTEGER PRIMARY KEY AUTOINCREMENT, rater INTEGER NOT NULL REFERENCES rater,
  reply INTEGER NOT NULL REFERENCES reply,
  consistency INTEGER NOT NULL CHECK (consistency IN (-1, 0, 1)),
  fluency INTEGER NOT NULL CHECK (fluency IN (-1, 0, 1)),
  coherence INTEGER NOT NULL CHECK (coherence IN (-1, 0, 1)),
  at TEXT NOT NULL
) STRICT;
CREATE INDEX rating_of ON rating (rater, reply, id);
CREATE VIEW counted AS
  SELECT * FROM rating WHERE id IN (SELECT max(id) FROM rating GROUP BY rater, reply);
"""


class Scores(NamedTuple):
    """One answer: -1, 0 or 1 for each of the paper's criteria (section 3.3)."""

    consistency: int
    fluency: int
    coherence: int


class Task(NamedTuple):
    """What a rater sees at one place of the list; not whose reply it is.

    Attributes:
      reply: id.
      place: counts from 0.
      count: of places.
      rated: how many of them have an answer of this rater.
      statements, utterances, context: of the item.
      text: the reply.
      scores: the rater's last answer, None before the first.
    """

    reply: int
    place: int
    count: int
    rated: int
    statements: tuple[str, ...]
    utterances: tuple[tuple[str, str], ...]
    context: str
    text: str
    scores: Scores | None


class RatingStore:
    """The ratings of one drawn sample.

    Every call has a connection of its own, so threads and processes may share the file.
    An answer is one transaction, on the disk before `answer` returns. Answers are only
    ever added: a rater's last one on a reply counts, and the others stay as history.

    Args:
      path: of a file that `create` made.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is not such a file.
    """

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(
                f"{path}: found no file, want one that python -m experiments.ratings --sample=50 "
                f"--from=RUN,RUN --output={path} makes"
            )
        try:
            with self._connection() as db:
                found = db.execute("PRAGMA application_id").fetchone()[0]
                version = db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError:
            found = version = None
        if (found, version) != (_APPLICATION, _FORMAT):
            raise ValueError(
                f"{path}: found something else, want a file that experiments.ratings --sample made"
            )

    @classmethod
    def create(
        cls, path: str | pathlib.Path, items: Sequence[Item], settings: dict[str, Any]
    ) -> "RatingStore":
        """Writes the items into a new file, all or nothing.

        Args:
          path: of the file.
          items: all with replies of the same systems.
          settings: how they were drawn; "seed" is that of the raters' orders too.

        Raises:
          ValueError: there are no items, or the file is there.
        """
        if not items:
            raise ValueError("found no items to rate, want one or more")
        path = pathlib.Path(path)
        if path.exists() and path.stat().st_size:
            raise ValueError(
                f"{path}: found a file, and ratings are not thrown away; name another --output"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with _connect(path) as db, _transaction(db):
            for statement in _SCHEMA.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            db.execute(f"PRAGMA user_version = {_FORMAT}")
            for name, value in settings.items():
                db.execute("INSERT INTO settings VALUES (?, ?)", (name, json.dumps(value)))
            for item in items:
                row = (
                    item.persona,
                    json.dumps(item.statements),
                    item.conversation,
                    item.turn,
                    json.dumps(item.utterances),
                    item.context,
                )
                number = db.execute("INSERT INTO item VALUES (NULL, ?, ?, ?, ?, ?, ?)", row)
                for system, text in item.replies.items():
                    row = (number.lastrowid, system.name, system.shots, text)
                    db.execute("INSERT INTO reply VALUES (NULL, ?, ?, ?, ?)", row)
        return cls(path)

    def settings(self) -> dict[str, Any]:
        """Returns how the items were drawn."""
        with self._connection() as db:
            return {name: json.loads(v) for name, v in db.execute("SELECT * FROM settings")}

    def rater(self, name: str, *, generated: bool = False) -> str:
        """Makes a rater known, or goes on with one.

        Args:
          name: up to 40 characters; capitals and blanks around it do not matter.
          generated: whether a program answers in the place of a person. It stands beside
            the answers wherever they are shown.

        Returns:
          The name as it is kept.

        Raises:
          ValueError: the name is empty, too long or unprintable, or a person's is used by
            a program or the other way round.
        """
        name = _rater_name(name)
        with self._connection() as db, _transaction(db):
            row = db.execute("SELECT generated FROM rater WHERE name = ?", (name,)).fetchone()
            if row is None:
                row = (int(generated),)
                db.execute("INSERT INTO rater VALUES (NULL, ?, ?, ?)", (name, *row, _now()))
        if bool(row[0]) != generated:
            kinds = "a program" if row[0] else "a person"
            raise ValueError(f"found {name!r} to be the name of {kinds}, want another name")
        return name

    def raters(self) -> dict[str, bool]:
        """Returns names -> whether a program answers, in order of arrival."""
        with self._connection() as db:
            return {
                n: bool(g) for n, g in db.execute("SELECT name, generated FROM rater ORDER BY id")
            }

    def order(self, rater: str) -> list[int]:
        """The replies in the order in which a rater sees them, the same every time.

        Items come in the order of the draw, so that raters who stop early share their
        items; the systems of an item are shuffled by (seed, rater, item).
        """
        seed = self.settings().get("seed", 0)
        by_item: dict[int, list[int]] = {}
        with self._connection() as db:
            for item, reply in db.execute("SELECT item, id FROM reply ORDER BY item, id"):
                by_item.setdefault(item, []).append(reply)
        for item, replies in by_item.items():
            random.Random(f"{seed}/{rater}/{item}").shuffle(replies)
        return [reply for replies in by_item.values() for reply in replies]

    def task(self, rater: str, place: int | None = None) -> Task:
        """What a rater sees.

        Args:
          rater: name as `rater` returned it.
          place: in the rater's order; None for the first without an answer, or the last
            place where all have one.
        """
        order, answers = self.order(rater), self.answers(rater)
        if place is None:
            place = next((n for n, r in enumerate(order) if r not in answers), len(order) - 1)
        reply = order[min(max(place, 0), len(order) - 1)]
        with self._connection() as db:
            text, statements, utterances, context = db.execute(
                "SELECT text, statements, utterances, context FROM reply JOIN item "
                "ON item.id = reply.item WHERE reply.id = ?",
                (reply,),
            ).fetchone()
        return Task(
            reply,
            order.index(reply),
            len(order),
            len(answers),
            tuple(json.loads(statements)),
            tuple((who, said) for who, said in json.loads(utterances)),
            context,
            text,
            answers.get(reply),
        )

    def answer(self, rater: str, reply: int, scores: Scores) -> None:
        """Adds an answer; it is on the disk when this returns.

        Raises:
          ValueError: a score is not -1, 0 or 1, or there is no such rater or reply.
        """
        if len(scores) != len(CRITERIA) or any(s not in (-1, 0, 1) for s in scores):
            raise ValueError(f"found scores {tuple(scores)}, want -1, 0 or 1 for each criterion")
        row = (*(int(s) for s in scores), _now(), rater, reply)
        with self._connection() as db, _transaction(db):
            added = db.execute(
                "INSERT INTO rating (rater, reply, consistency, fluency, coherence, at) "
                "SELECT rater.id, reply.id, ?, ?, ?, ? FROM rater, reply "
                "WHERE rater.name = ? AND reply.id = ?",
                row,
            ).rowcount
        if added != 1:
            raise ValueError(
                f"found no rater {rater!r} or no reply {reply}, want ones of this file"
            )

    def answers(self, rater: str) -> dict[int, Scores]:
        """Returns reply -> the scores that count."""
        return {row["reply"]: row["scores"] for row in self.rows(rater)}

    def history(self, rater: str, reply: int) -> list[Scores]:
        """Returns all answers of a rater on a reply, the first one first."""
        with self._connection() as db:
            found = db.execute(
                "SELECT consistency, fluency, coherence FROM rating "
                "JOIN rater ON rater.id = rating.rater WHERE name = ? AND reply = ? "
                "ORDER BY rating.id",
                (rater, reply),
            )
            return [Scores(*row) for row in found]

    def rows(self, rater: str | None = None) -> list[dict[str, Any]]:
        """Every answer that counts with all it belongs to, of one rater or of all."""
        names = (
            "rater generated item persona conversation turn reply system shots text "
            "consistency fluency coherence at"
        ).split()
        with self._connection() as db:
            found = db.execute(
                "SELECT rater.name, rater.generated, item.id, persona, conversation, turn, "
                "reply.id, system, shots, text, consistency, fluency, coherence, counted.at "
                "FROM counted JOIN rater ON rater.id = counted.rater "
                "JOIN reply ON reply.id = counted.reply JOIN item ON item.id = reply.item "
                "WHERE ?1 IS NULL OR rater.name = ?1 ORDER BY reply.id, rater.id",
                (rater,),
            ).fetchall()
        rows = [dict(zip(names, row)) for row in found]
        for row in rows:
            row["scores"] = Scores(*(row.pop(name) for name in CRITERIA))
        return rows

    def systems(self) -> list[tuple[str, int]]:
        """Returns (name, shots) of all systems, in the order of the draw."""
        with self._connection() as db:
            return db.execute(
                "SELECT system, shots FROM reply GROUP BY system, shots ORDER BY min(id)"
            ).fetchall()

    def count(self) -> int:
        """Returns how many replies there are to rate."""
        with self._connection() as db:
            return db.execute("SELECT count(*) FROM reply").fetchone()[0]

    def _connection(self):
        return _connect(self.path)


@contextlib.contextmanager
def _connect(path) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        yield db
    finally:
        db.close()


@contextlib.contextmanager
def _transaction(db) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")  # waits here for other writers, not at the first write
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _rater_name(name):
    name = " ".join(unicodedata.normalize("NFKC", str(name)).split()).casefold()
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable():
        raise ValueError(
            f"found a name of {len(name)} characters, want 1 to {_LONGEST_NAME}, all printable"
        )
    return name


def _now():
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
