"""Record the trials of a soak, one line each, so that it can resume."""

import collections
import json

from tqdm import tqdm

from mtml_jax.runs.journal import read_journal


class Trials:
    """The trials of a part: reads those that are done and appends each new one at once."""

    def __init__(self, path, part, wanted):
        self.done = _rows(path, mend=True)
        self._file = open(path, "a", encoding="utf-8")
        self._bar = tqdm(total=wanted, initial=min(len(self.done), wanted), desc=part, unit="trial")
        self._wanted = wanted

    def left(self):
        """The numbers of the remaining trials."""
        return range(len(self.done), self._wanted)

    def add(self, survived: bool, end: str, text: str | None = None, **more):
        """Records whether a program behaved as expected.

        Args:
          survived: whether it did.
          end: what it ended with; trials are counted by it.
          text: what it printed, whose end is kept if it did not survive.
          **more: further fields of the line.
        """
        row = {"survived": survived, "end": end, **more}
        if text is not None:
            row["said"] = "" if survived else text[-800:]
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
    """Counts how the trials of a part ended."""
    rows = _rows(path)
    survived, kills = (sum(row.get(name, 0) for row in rows) for name in ("survived", "kills"))
    ends = dict(collections.Counter(row["end"] for row in rows))
    return {"tried": len(rows), "survived": survived, "kills": kills, "ends": ends}
