"""Show the progress of what runs long: a bar on a terminal, a line a minute in a batch job's log."""

import sys
import time

from tqdm import tqdm

_SECONDS = 60  # between two lines
_LINE = "{desc}{n_fmt} of {total_fmt} {unit}s, {elapsed} gone, {remaining} left{postfix}"


class ProgressBar(tqdm):
    """tqdm on a terminal; elsewhere it prints a line a minute, and the first after a minute."""

    def __init__(self, *args, **settings):
        file = settings.get("file") or sys.stderr
        self._lines = not file.isatty()
        self._said = time.monotonic()
        if self._lines:
            # At the mean pace: between lines so far apart, the newest pace is that of compiling.
            settings = {"bar_format": _LINE, "smoothing": 0, **settings, "mininterval": _SECONDS}
        super().__init__(*args, **settings)

    def display(self, msg=None, pos=None):
        if not self._lines:
            return super().display(msg, pos)
        if time.monotonic() - self._said >= _SECONDS:
            self._said = time.monotonic()
            print(msg or str(self), file=self.fp, flush=True)
        return True

    def clear(self, nolock=False):
        if not self._lines:
            super().clear(nolock)

    def close(self):
        if self._lines and not self.disable:
            self.disable = True  # no last line
            self._decr_instances(self)
        super().close()
