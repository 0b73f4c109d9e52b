"""Define the SQLite file that items and ratings are stored in."""

import contextlib
import pathlib
import sqlite3
from collections.abc import Iterator

FORMAT = 1
APPLICATION = 0x6D746D6C  # "mtml", in the header of the file
SCHEMA = """
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


@contextlib.contextmanager
def connect(path: str | pathlib.Path) -> Iterator[sqlite3.Connection]:
    """Opens a rating file; what is committed is on the disk."""
    db = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        yield db
    finally:
        db.close()


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commits the statements of a block together, or none of them."""
    db.execute("BEGIN IMMEDIATE")  # waits for other writers here, not at the first write
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
