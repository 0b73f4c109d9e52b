"""Run the Transformer as PyTorch users write it: `python -m experiments.benchmark.peer_torch FOLDER`.

Contexts, responses and personas are padded to the longest of each dialogue. See `peer_process` for
the files and the ways. This file does not import JAX.
"""

import math

import numpy as np
import torch
from torch.nn import functional

from experiments.benchmark.peer_process import parameters, run_peer

WAYS = ("loop", "higher", "func")
_MASKED = -1e9
_ACTIVATIONS = {
    "relu": functional.relu,
    "gelu": lambda hidden: functional.gelu(hidden, approximate="tanh"),
}


class Model(torch.nn.Module):
    """The Transformer of `mtml_jax.model.transformer` on batches padded at the end."""

    def __init__(self, params, heads: int, layers: tuple[int, int], activation: str):
        super().__init__()
        self.heads, self.layers, self.activate = heads, layers, _ACTIVATIONS[activation]
        self.weights = params

    def forward(self, context, response, persona, alpha):
        """alpha L_res + (1 - alpha) L_rec; ids [example, token], 0 in padding."""
        memory, seen = self.encode(context)
        loss_response = self.task(memory, seen, *response)
        loss_persona = self.task(memory, seen, *persona)
        return alpha * loss_response + (1 - alpha) * loss_persona

    def encode(self, ids):
        real = ids > 0
        hidden = self.embed(ids)
        for n in range(self.layers[0]):
            name = f"encoder-{n}-self_attention"
            hidden = self.self_attend(name, hidden, real[:, None, None])
            hidden = self.feed_forward(f"encoder-{n}-feed_forward", hidden)
        return self.norm("encoder_norm", hidden), real[:, None, None]

    def task(self, memory, seen, inputs, targets):
        hidden = self.embed(inputs)
        length = inputs.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
        for n in range(self.layers[1]):
            hidden = self.self_attend(f"decoder-{n}-self_attention", hidden, causal)
            hidden = self.cross_attend(f"decoder-{n}-cross_attention", hidden, memory, seen)
            hidden = self.feed_forward(f"decoder-{n}-feed_forward", hidden)
        logits = self.norm("decoder_norm", hidden) @ self.weights["embedding"].T
        real = (targets > 0).to(logits.dtype)
        nll = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        return (nll * real).sum() / real.sum()

    def embed(self, ids):
        table = self.weights["embedding"]
        width = table.shape[1]
        rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=table.dtype) / width)
        angles = torch.arange(ids.shape[1], dtype=table.dtype)[:, None] * rates[None]
        return math.sqrt(width) * table[ids] + torch.cat([angles.sin(), angles.cos()], -1)

    def norm(self, name, hidden):
        scale, bias = self.weights[f"{name}-scale"], self.weights[f"{name}-bias"]
        return functional.layer_norm(hidden, scale.shape, scale, bias, eps=1e-6)

    def dense(self, name, part, hidden):
        return hidden @ self.weights[f"{name}-{part}"] + self.weights[f"{name}-{part}_bias"]

    def attend(self, name, query, key, value, mask):
        def split(x):
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query = query + self.weights[f"{name}-query_bias"]
        value = value + self.weights[f"{name}-value_bias"]
        scores = split(query) @ split(key).transpose(-1, -2) / math.sqrt(
            query.shape[-1] // self.heads
        )
        mixed = scores.masked_fill(~mask, _MASKED).softmax(-1) @ split(value)
        return self.dense(name, "output", mixed.transpose(1, 2).flatten(-2))

    def self_attend(self, name, hidden, mask):
        normal = self.norm(f"{name}-norm", hidden)
        fused = normal @ self.weights[f"{name}-query_key_value"]
        return hidden + self.attend(name, *fused.chunk(3, -1), mask)

    def cross_attend(self, name, hidden, memory, mask):
        query = self.norm(f"{name}-norm", hidden) @ self.weights[f"{name}-query"]
        fused = memory @ self.weights[f"{name}-key_value"]
        return hidden + self.attend(name, query, *fused.chunk(2, -1), mask)

    def feed_forward(self, name, hidden):
        normal = self.norm(f"{name}-norm", hidden)
        active = self.activate(self.dense(name, "hidden", normal))
        return hidden + self.dense(name, "output", active)


def _read(flat, problem):
    """Reads the model, and (support, query) of each persona; see `run_peer`."""
    sizes = (problem[name] for name in ("heads", "layers", "activation"))
    fields = ("context", "response_inputs", "response", "persona_inputs", "persona")

    def side(number, name):
        ids = [flat[f"data/{number}/{name}/{field}"].astype(np.int64) for field in fields]
        context, *targets = map(torch.from_numpy, ids)
        return context, tuple(targets[:2]), tuple(targets[2:])

    episodes = [(side(n, "support"), side(n, "query")) for n in range(problem["personas"])]
    return Model(parameters(flat), *sizes), episodes


if __name__ == "__main__":
    run_peer(__doc__.splitlines()[0], WAYS, _read)
