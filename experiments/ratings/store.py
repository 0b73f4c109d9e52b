"""Store items and ratings in one SQLite file that several raters write to at once."""

import datetime
import json
import pathlib
import random
import sqlite3
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.ratings.database import APPLICATION, FORMAT, SCHEMA, connect, transaction
from experiments.ratings.items import Item

CRITERIA = ("consistency", "fluency", "coherence")
_LONGEST_NAME = 40


class Scores(NamedTuple):
    """One answer: -1, 0 or 1 for each criterion of the paper (section 3.3)."""

    consistency: int
    fluency: int
    coherence: int


class Task(NamedTuple):
    """What a rater sees at one place of the list, without the system that replied.

    Attributes:
      reply: id of the reply.
      place: counts from 0, of `count`, of which the rater has answered `rated`.
      statements, utterances, context: of the item.
      text: the reply.
      scores: the rater's last answer; None before the first.
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

    Every call opens its own connection, so threads and processes may share the file. An
    answer is one transaction, on the disk before `answer` returns. Answers are only added:
    the last one of a rater on a reply counts, and earlier ones remain as history.

    Args:
      path: file that `create` wrote.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: `create` did not write it.
    """

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(
                f"{path}: expected a file of ratings, got no file; make one by python -m "
                f"experiments.ratings --sample=50 --from=RUN,RUN --output={path}"
            )
        try:
            with self._connection() as db:
                found = db.execute("PRAGMA application_id").fetchone()[0]
                version = db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError:
            found = version = None
        if (found, version) != (APPLICATION, FORMAT):
            raise ValueError(
                f"{path}: expected a file that experiments.ratings --sample made, got another file; "
                "check the path"
            )

    @classmethod
    def create(
        cls, path: str | pathlib.Path, items: Sequence[Item], settings: dict[str, Any]
    ) -> "RatingStore":
        """Writes items, with replies of the same systems, into a new file, all or nothing.

        `settings` say how the items were drawn; "seed" also seeds the raters' orders.

        Raises:
          ValueError: there are no items, or the file exists.
        """
        if not items:
            raise ValueError("expected one or more items to rate, got no items")
        path = pathlib.Path(path)
        if path.exists() and path.stat().st_size:
            raise ValueError(
                f"{path}: expected a new file, got one that exists; ratings are never overwritten, "
                "choose another --output"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with connect(path) as db, transaction(db):
            for statement in SCHEMA.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION}")
            db.execute(f"PRAGMA user_version = {FORMAT}")
            for name, value in settings.items():
                db.execute("INSERT INTO settings VALUES (?, ?)", (name, json.dumps(value)))
            for item in items:
                statements, said = json.dumps(item.statements), json.dumps(item.utterances)
                row = (item.persona, statements, item.conversation, item.turn, said, item.context)
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
        """Adds a rater, or returns to one.

        Args:
          name: up to 40 characters; case and surrounding spaces are ignored.
          generated: whether a program answers in place of a person. Wherever its answers
            are shown, they are marked.

        Returns:
          The name as stored.

        Raises:
          ValueError: the name is empty, too long or unprintable, or a person and a program
            use the same name.
        """
        name = _rater_name(name)
        with self._connection() as db, transaction(db):
            row = db.execute("SELECT generated FROM rater WHERE name = ?", (name,)).fetchone()
            if row is None:
                row = (int(generated),)
                db.execute("INSERT INTO rater VALUES (NULL, ?, ?, ?)", (name, *row, _now()))
        if bool(row[0]) != generated:
            kinds = "a program" if row[0] else "a person"
            raise ValueError(f"expected a new name, got {name!r}, the name of {kinds}")
        return name

    def raters(self) -> dict[str, bool]:
        """Returns name -> whether a program answers, in order of arrival."""
        with self._connection() as db:
            found = db.execute("SELECT name, generated FROM rater ORDER BY id")
            return {name: bool(generated) for name, generated in found}

    def order(self, rater: str) -> list[int]:
        """Returns the replies in the order in which a rater sees them, the same every time.

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
        """Returns what a rater sees.

        Args:
          rater: name as `rater` returned it.
          place: in the rater's order; None for the first without an answer, or the last
            place if all have one.
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
        said = tuple((who, words) for who, words in json.loads(utterances))
        shown = tuple(json.loads(statements)), said, context, text
        progress = order.index(reply), len(order), len(answers)
        return Task(reply, *progress, *shown, answers.get(reply))

    def answer(self, rater: str, reply: int, scores: Scores) -> None:
        """Adds an answer, which is on the disk when this returns.

        Raises:
          ValueError: a score is not -1, 0 or 1, or there is no such rater or reply.
        """
        if len(scores) != len(CRITERIA) or any(s not in (-1, 0, 1) for s in scores):
            raise ValueError(f"expected -1, 0 or 1 for each criterion, got {tuple(scores)}")
        row = (*(int(s) for s in scores), _now(), rater, reply)
        with self._connection() as db, transaction(db):
            added = db.execute(
                "INSERT INTO rating (rater, reply, consistency, fluency, coherence, at) "
                "SELECT rater.id, reply.id, ?, ?, ?, ? FROM rater, reply "
                "WHERE rater.name = ? AND reply.id = ?",
                row,
            ).rowcount
        if added != 1:
            raise ValueError(
                f"expected a rater and a reply of this file, got no rater {rater!r} or no reply {reply}"
            )

    def answers(self, rater: str) -> dict[int, Scores]:
        """Returns reply -> the scores that count."""
        return {row["reply"]: row["scores"] for row in self.rows(rater)}

    def history(self, rater: str, reply: int) -> list[Scores]:
        """Returns all answers of a rater on a reply, oldest first."""
        with self._connection() as db:
            found = db.execute(
                "SELECT consistency, fluency, coherence FROM rating "
                "JOIN rater ON rater.id = rating.rater WHERE name = ? AND reply = ? "
                "ORDER BY rating.id",
                (rater, reply),
            )
            return [Scores(*row) for row in found]

    def rows(self, rater: str | None = None) -> list[dict[str, Any]]:
        """Returns every answer that counts with its item, reply and rater; of one rater or all."""
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
        return connect(self.path)


def _rater_name(name):
    name = " ".join(unicodedata.normalize("NFKC", str(name)).split()).casefold()
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable():
        raise ValueError(
            f"expected a name of 1 to {_LONGEST_NAME} printable characters, got {len(name)} characters"
        )
    return name


def _now():
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
