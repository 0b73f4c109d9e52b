"""Trials of a soak, a line each; those done before are known."""

import json

from tqdm import tqdm

from mtml_jax.runs.journal import read_journal


class Trials:
    """Trials of a part: those done before are known, each new one is written at once."""

    def __init__(self, path, part, wanted):
        self.done = _rows(path, mend=True)
        self._file = open(path, "a", encoding="utf-8")
        self._bar = tqdm(total=wanted, initial=min(len(self.done), wanted), desc=part, unit="trial")
        self._wanted = wanted

    def left(self):
        """Numbers of the trials to do."""
        return range(len(self.done), self._wanted)

    def add(self, survived: bool, end: str, **more):
        row = {"survived": survived, "end": end, **more}
        self.done.append(row)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._bar.update()
        if not survived:
            self._bar.write(f"not survived: {row}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self._bar.close()


def _rows(path, mend=False):
    return read_journal(path, dict, expected="a trial", remedy="remove the line", mend=mend)


def counted(path):
    """How a part's trials ended."""
    rows = _rows(path)
    ends = [row["end"] for row in rows]
    survived = sum(row["survived"] for row in rows)
    kills = sum(row.get("kills", 0) for row in rows)
    counted = {end: ends.count(end) for end in set(ends)}
    return {"tried": len(rows), "survived": survived, "kills": kills, "ends": counted}
