"""Show one progress bar over many runs, with the remaining time."""

from tqdm import tqdm

from mtml_jax.progress import ProgressBar

_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"


def whole_bar(total: float) -> tqdm:
    """Returns a bar with this total; the remaining time is estimated from the mean pace."""
    return ProgressBar(total=total, smoothing=0, bar_format=_FORMAT)


class Part:
    """A part of a bar, which takes `cost` of its total; a training or a test uses it as its own."""

    def __init__(self, bar: tqdm, name: str, cost: float):
        self._bar, self._name, self._cost = bar, name, cost
        self.done = 0.0  # of `cost`
        self._until, self._scale = 0.0, 0.0
        bar.set_description_str(name, refresh=True)

    def stage(self, what: str, share: float, count: int) -> None:
        """Begins a stage of `count` updates that ends at this share of the part."""
        self._advance(self._until - self.done)  # skips what an earlier process has done
        self._scale = (share * self._cost - self.done) / max(count, 1)
        self._until = share * self._cost
        self._bar.set_description_str(f"{self._name}: {what}", refresh=True)

    def update(self, count: int = 1) -> None:
        self._advance(min(count * self._scale, self._until - self.done))

    def finish(self) -> None:
        self._advance(self._cost - self.done)

    def _advance(self, step):
        self.done += step
        self._bar.update(step)

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        self._bar.set_postfix_str(text, refresh)

    def set_description(self, text: str) -> None:
        self._bar.set_postfix_str(text, refresh=True)
