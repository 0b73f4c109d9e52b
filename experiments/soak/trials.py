"""Record the trials of a soak, one line each, so that it can resume."""

import json

from tqdm import tqdm

from mtml_jax.runs.journal import read_journal


class Trials:
    """The trials of a part: reads those that are done and appends each new one at once.

    Args:
      path: file of the trials.
      part: name of the part.
      wanted: number of trials in total.
    """

    def __init__(self, path, part, wanted):
        self.done = _rows(path, mend=True)
        self._file = open(path, "a", encoding="utf-8")
        self._bar = tqdm(total=wanted, initial=min(len(self.done), wanted), desc=part, unit="trial")
        self._wanted = wanted

    def left(self):
        """Returns the numbers of the remaining trials."""
        return range(len(self.done), self._wanted)

    def add(self, survived: bool, end: str, **more):
        """Records a trial.

        Args:
          survived: whether the program behaved as expected.
          end: what it ended with; trials are counted by it.
          **more: further fields of the line.
        """
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
    """Counts how the trials of a part ended."""
    rows = _rows(path)
    ends = [row["end"] for row in rows]
    survived = sum(row["survived"] for row in rows)
    kills = sum(row.get("kills", 0) for row in rows)
    by_end = {end: ends.count(end) for end in set(ends)}
    return {"tried": len(rows), "survived": survived, "kills": kills, "ends": by_end}
