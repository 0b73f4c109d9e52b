"""Draw the places of a dialogue at which a command shows replies."""

import numpy as np

_PLACES = 3


def drawn_places(count: int, seed: int) -> list[int]:
    """Draws places of `count` in order, one of each third, so that they are of several kinds."""
    rng = np.random.default_rng(seed)
    thirds = np.array_split(np.arange(count), _PLACES)
    return [int(rng.choice(third)) for third in thirds if len(third)]
