"""Write the problem that a PyTorch process solves: parameters, episodes and settings."""

import json
import pathlib

import jax
import numpy as np

from mtml_jax.config import TrainConfig
from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.data.encode import EncodedDialogue
from mtml_jax.data.episodes import sample_episodes
from mtml_jax.data.prepare import Prepared
from mtml_jax.data.rows import pack_row
from mtml_jax.data.vocab import START, START_PERSONA
from mtml_jax.model.llama import visible
from mtml_jax.strategies import TASKS


def write_problem(
    folder: pathlib.Path, config: TrainConfig, data: Prepared, step: int, params, base=None
) -> None:
    """Writes problem.npz and problem.json, which `peer_torch` or `peer_torch_decoder` reads.

    Args:
      folder: where the files are written.
      config: the configuration of mtml.
      data: the corpus, prepared for `config`.
      step: the training step whose episodes are used.
      params: the initial parameters; of a pretrained decoder its adapters.
      base: the frozen parameters of a pretrained decoder.

    Raises:
      ValueError: the decoder has parameters that `peer_torch_decoder` does not know.
    """
    triples = sample_episodes(data.train, config.meta_batch, config.seed, step)
    model = config.model
    problem = {"personas": len(triples), "alpha": config.alpha, "inner_lr": config.inner_lr}
    arrays = {f"params/{name}": leaf for name, leaf in named_leaves(params).items()}
    if isinstance(model, LlamaConfig):
        problem |= _decoder(model, config.init_from, base)
        arrays |= {f"base/{name}": leaf for name, leaf in named_leaves(base).items()}
    else:
        problem |= {
            "heads": model.heads, "layers": [model.encoder_layers, model.decoder_layers],
            "activation": model.activation,
        }  # fmt: skip
    for number, (_, *sides) in enumerate(triples):
        for side, dialogue in zip(("support", "query"), sides):
            if isinstance(model, LlamaConfig):
                fields = _row(dialogue)
            else:
                fields = _padded(dialogue, config.distinct_start)
            arrays |= {f"data/{number}/{side}/{name}": x for name, x in fields.items()}
    np.savez(folder / "problem.npz", **arrays)
    (folder / "problem.json").write_text(json.dumps(problem))


def named_leaves(tree) -> dict[str, np.ndarray]:
    """Names arrays by their path, such as "encoder/0/feed_forward/hidden"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _padded(dialogue: EncodedDialogue, distinct_start: bool) -> dict[str, np.ndarray]:
    """Pads the ids of all turns to the longest of the dialogue."""
    start = START_PERSONA if distinct_start else START
    turns = tuple(dialogue.examples)
    fields = {
        "context": [e.context for e in turns],
        "response_inputs": [(START, *e.response[:-1]) for e in turns],
        "response": [e.response for e in turns],
        "persona_inputs": [(start, *e.persona[:-1]) for e in turns],
        "persona": [e.persona for e in turns],
    }
    padded = {}
    for field, rows in fields.items():
        padded[field] = np.zeros((len(rows), max(map(len, rows))), np.int32)
        for n, ids in enumerate(rows):
            padded[field][n, : len(ids)] = ids
    return padded


def _decoder(model: LlamaConfig, name: str, base) -> dict:
    """The settings that the decoder's forward pass reads."""
    unknown = [part for part in base["layers"] if part.endswith("_bias") or part in ("query_norm", "key_norm")]
    if unknown:
        raise ValueError(
            f"expected a decoder without biases and norms of queries and keys with --peers, got "
            f"{name} with {min(unknown)}; measure it without --peers"
        )
    return {
        "heads": model.heads, "key_value_heads": model.key_value_heads,
        "head_width": model.head_width, "epsilon": model.epsilon, "rope_theta": model.rope_theta,
        "rope_factors": model.rope_factors, "scale": model.lora.scale,
    }  # fmt: skip


def _row(dialogue: EncodedDialogue) -> dict[str, np.ndarray]:
    """The row of a dialogue without padding, and whether token t sees token s."""
    strands = [window.strands(TASKS) for window in dialogue.examples]
    flat = [strand for some in strands for strand in some]
    slots, predicted = sum(len(s.ids) for s in flat), sum(len(s.predicted) for s in flat)
    row, targets, _ = pack_row(strands, slots, predicted)
    return {
        "ids": row.ids, "position": row.position, "visible": np.asarray(visible(row)),
        "slot": targets.slot, "target": targets.ids,
        "task": 1 + targets.task,  # so that 0 is left for padding
    }  # fmt: skip
