"""Set up the strict configuration of all tests, and the fixtures that several files use."""

import atexit
import dataclasses
import gc
import importlib.metadata
import json
import os
import shutil
import tempfile
from pathlib import Path

# JAX reads its settings once, so they are set before it is imported. Workers and subprocesses
# inherit them, and share the compiled programs of the test run.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="mtml_jax_programs_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# Nearly all of the tests' time is compiling, which takes half as long without XLA's own emitters
# of fused loops on a CPU. A JAX that does not know the flag would end with an error.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"
    ).strip()
import jax
import numpy as np
import pytest

from mtml_jax.data.encode import Example
from mtml_jax.data.vocab import END, SPECIALS
from mtml_jax.model import transformer

TINY_WORDS = "i you have a dog cat . , ? ! hi is what do like not name who are there tea am my"

gc.set_threshold(20_000)  # garbage collection takes a fifth of the tracing time
jax.config.update("jax_num_cpu_devices", 2)  # the sharded path needs two
# Halves the time to compile; tiny models run fast anyway.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The files that take longest, longest first, so that no worker begins one of them at the end.
LONGEST = (
    "meta/test_gradients.py", "meta/test_textbook.py", "meta/test_adapters.py",
    "model/test_llama.py", "meta/test_golden.py", "experiments/test_benchmark.py",
    "meta/test_cost.py", "eval/test_reconstruction.py", "eval/test_adaptation.py",
    "inference/test_adapt.py", "experiments/test_app.py", "experiments/test_chat.py",
    "experiments/test_evaluate.py", "train/test_loop.py", "experiments/test_check_data.py",
)  # fmt: skip


def pytest_configure(config):
    """Hands out files in the order of collection, not those with the most tests first."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Begins with the files that take longest."""
    rank = {Path(__file__).parent / name: n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora next to the checkout; tests that need it are skipped without."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real corpora: there is no folder {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def prepared_copies(tmp_path_factory):
    """Stores prepared corpora in a folder of the test run instead of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("tfds")))
        yield


@pytest.fixture(scope="module")
def float64():
    """Makes float64 the default of a whole test file."""
    with jax.enable_x64(True):
        yield


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


@pytest.fixture(scope="session")
def draw_bert():
    """(folder, **changed settings) -> the folder with a small BERT classifier in it.

    Tensors are drawn in the sorted order of their names as 0.3 times the standard
    normal of `default_rng(0)`, plus 1 for the scales of layer normalisation.
    """
    safetensors = pytest.importorskip("safetensors.numpy")

    def draw(folder, labels=("entailment", "neutral", "contradiction"), **changed):
        settings = {
            "model_type": "bert", "num_hidden_layers": 2, "num_attention_heads": 3,
            "hidden_size": 33, "intermediate_size": 37, "vocab_size": 29,
            "max_position_embeddings": 23, "type_vocab_size": 2, "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
        }  # fmt: skip
        settings["id2label"] = {str(n): label for n, label in enumerate(labels)}
        wide, inner = settings["hidden_size"], settings["intermediate_size"]
        shapes = {
            "embeddings.word_embeddings.weight": (29, wide),
            "embeddings.position_embeddings.weight": (23, wide),
            "embeddings.token_type_embeddings.weight": (2, wide),
        }

        def add(name, *shape):
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

        add("embeddings.LayerNorm", wide)
        for n in range(settings["num_hidden_layers"]):
            layer = f"encoder.layer.{n}"
            for part in ("self.query", "self.key", "self.value", "output.dense"):
                add(f"{layer}.attention.{part}", wide, wide)
            add(f"{layer}.attention.output.LayerNorm", wide)
            add(f"{layer}.intermediate.dense", inner, wide)
            add(f"{layer}.output.dense", wide, inner)
            add(f"{layer}.output.LayerNorm", wide)
        add("pooler.dense", wide, wide)
        shapes = {f"bert.{name}": shape for name, shape in shapes.items()}
        add("classifier", len(labels), wide)
        rng = np.random.default_rng(0)
        tensors = {
            name: (
                0.3 * rng.standard_normal(shapes[name]) + name.endswith("LayerNorm.weight")
            ).astype(np.float32)
            for name in sorted(shapes)
        }
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps({**settings, **changed}))
        words = "[PAD] [UNK] [CLS] [SEP] [MASK] i have two dogs cats no my is blue . like ##s"
        words += " you are at home we read books car red the a not"
        (folder / "vocab.txt").write_text("\n".join(words.split()) + "\n")
        return folder

    return draw


@pytest.fixture(scope="session")
def save_tiny_run():
    """(folder, seed, **changed settings) -> the folder with a small random model in it.

    Its words are those of `TINY_WORDS`. Its parameters are larger than initial ones, so that
    replies differ.
    """
    from mtml_jax.config import ModelConfig, TileShape, TrainConfig
    from mtml_jax.data.vocab import Vocabulary
    from mtml_jax.meta.outer import init_state
    from mtml_jax.runs.checkpoint import Checkpoints
    from mtml_jax.runs.folder import save_run

    def save(folder, seed=3, **changed):
        config = TrainConfig(
            model=ModelConfig(
                encoder_layers=1, decoder_layers=1, heads=2, width=6, feed_forward=10,
            ),
            shape=TileShape(rows=2, context=31, response=41, persona=61),
            inner_lr=0.3,
        )
        config = dataclasses.replace(config, **changed)
        words = Vocabulary(SPECIALS + tuple(TINY_WORDS.split()))
        save_run(folder, {**dataclasses.asdict(config), "data": "demo"}, words.to_text())
        params = transformer.init(jax.random.key(seed), len(words), config.model)
        params = jax.tree.map(lambda x: 2.0 * x, params)
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(3, init_state(params), {}, best=True)
            checkpoints.wait()
        return folder

    return save


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory):
    """The folder of a small random decoder of Hugging Face's layout, with bytes as its subwords."""
    tokenizers = pytest.importorskip("tokenizers")
    pytest.importorskip("safetensors")
    import llama_golden

    folder = tmp_path_factory.mktemp("decoder")
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*controls, *sorted(byte_level.alphabet()), "th", "the", "Ġthe"]
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    bpe = tokenizers.models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges)
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(controls)
    tokenizer.save(str(folder / "tokenizer.json"))
    llama_golden.write_checkpoint(folder, "llama", len(tokens))
    return folder
