"""The strict setting that all tests run in, and what several test files use."""

import gc
from pathlib import Path

import jax
import numpy as np
import pytest

from mtml_jax import transformer
from mtml_jax.data.episodes import Example
from mtml_jax.data.vocab import END, SPECIALS

gc.set_threshold(20_000)  # looking for garbage takes a fifth of the time to trace
jax.config.update("jax_num_cpu_devices", 2)  # so that the sharded path has two to share
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora beside the checkout; tests that need it skip without."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real corpora: there is no folder {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def prepared_copies(tmp_path_factory):
    """Corpora are prepared in a folder of the test run, not in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("tfds")))
        yield


@pytest.fixture(scope="module")
def float64():
    """Arrays of a whole test file are float64 where nothing else is said."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def quick_compile():
    """Halves the time to compile second derivatives; tiny models run fast anyway."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def draw_params():
    """(config, vocabulary size, seed) -> float64 parameters, none of them zero or one.

    Leaves are drawn in the order of `jax.tree.leaves` as 0.3 times the standard
    normal of `default_rng(seed)`, plus 1 for the scales of layer normalisation.
    """

    def draw(config, vocabulary, seed=0):
        rng = np.random.default_rng(seed)
        shapes = jax.eval_shape(lambda: transformer.init(jax.random.key(0), vocabulary, config))
        return jax.tree.map_with_path(
            lambda path, leaf: 0.3 * rng.standard_normal(leaf.shape) + (path[-1].key == "scale"),
            shapes,
        )

    return draw


@pytest.fixture(scope="session")
def draw_dialogue():
    """(generator, turns, vocabulary size) -> examples that share one persona.

    In this order: 2 to 4 words of the statements, then for every turn 1 to 7 words of
    context and 0 to 3 of response; words are uniform over those that are not special.
    """

    def draw(rng, turns, vocabulary):
        def words(low, high):
            size = rng.integers(low, high + 1)
            return tuple(int(i) for i in rng.integers(len(SPECIALS), vocabulary, size))

        persona = words(2, 4) + (END,)
        return [Example(words(1, 7), words(0, 3) + (END,), persona) for _ in range(turns)]

    return draw
