"""Run a Llama decoder with adapters: `python -m experiments.benchmark.peer_torch_decoder FOLDER`.

The decoder of `mtml_jax.model.llama` as PyTorch users write it, with eager attention: a dialogue is
one row of tokens without padding, in `func` padded to the longest of all. The adapters are the
parameters; the layers before the first adapted one run without a graph. See `peer_process` for
the files and the ways. This file does not import JAX.
"""

import numpy as np
import torch
from torch.nn import functional

from experiments.benchmark.peer_process import parameters, run_peer

WAYS = ("loop", "func")
_MASKED = -1e9
_RESPONSE, _PERSONA = 1, 2  # tasks; 0 is padding


class Decoder(torch.nn.Module):
    """Frozen layers, layers with adapters, and the output at the slots that predict a token."""

    def __init__(self, params, base, problem):
        super().__init__()
        self.weights, self.problem = params, problem
        self.base = {name: x for name, x in base.items() if "/" not in name}
        self.frozen, self.layers = (_unstacked(base, part) for part in ("frozen", "layers"))
        half = problem["head_width"] // 2
        rates = problem["rope_theta"] ** (-np.arange(half) / half)
        rates /= np.array(problem["rope_factors"] or 1.0)
        self.rates = torch.from_numpy(rates.astype(np.float32))

    def forward(self, ids, position, visible, slot, target, task, alpha):
        """alpha L_res + (1 - alpha) L_rec of one row [token]; `visible` [token, seen token]."""
        angles = position[:, None] * self.rates[None]
        with torch.no_grad():
            hidden = self.base["embedding"][ids]
            for layer in self.frozen:
                hidden = self.layer(layer, {}, hidden, angles, visible)
        for layer, adapter in zip(self.layers, self.adapters()):
            hidden = self.layer(layer, adapter, hidden, angles, visible)
        matrix = self.base.get("output", self.base["embedding"])
        logits = self.norm(self.base["norm"], hidden[slot]) @ matrix.T
        nll = functional.cross_entropy(logits, target, reduction="none")

        def mean(number):
            mine = (task == number).to(nll.dtype)
            return (nll * mine).sum() / mine.sum().clamp(min=1)

        return alpha * mean(_RESPONSE) + (1 - alpha) * mean(_PERSONA)

    def adapters(self):
        """{product: (A, B)} of each adapted layer."""
        names = sorted({name.split("-")[0] for name in self.weights})
        stacks = [(self.weights[f"{n}-a"].unbind(0), self.weights[f"{n}-b"].unbind(0)) for n in names]
        layers = zip(*(zip(*stack) for stack in stacks))
        return [dict(zip(names, pairs)) for pairs in layers]

    def layer(self, layer, adapter, hidden, angles, visible):
        groups, size = self.problem["key_value_heads"], self.problem["head_width"]
        repeats = self.problem["heads"] // groups
        normal = self.norm(layer["attention_norm"], hidden)
        query, key, value = (
            self.product(layer, adapter, name, normal).unflatten(-1, (-1, size)).transpose(0, 1)
            for name in ("query", "key", "value")
        )
        query, key = self.rotate(query, angles), self.rotate(key, angles)
        key, value = (x.repeat_interleave(repeats, 0) for x in (key, value))
        scores = query @ key.transpose(-1, -2) * size**-0.5
        mixed = scores.masked_fill(~visible[None], _MASKED).softmax(-1) @ value
        mixed = mixed.transpose(0, 1).flatten(-2)
        hidden = hidden + self.product(layer, adapter, "output", mixed)
        normal = self.norm(layer["feed_forward_norm"], hidden)
        gate, up = (self.product(layer, adapter, name, normal) for name in ("gate", "up"))
        return hidden + self.product(layer, adapter, "down", functional.silu(gate) * up)

    def product(self, layer, adapter, name, inputs):
        """x W + scale (x A) B, or x W where there is no adapter."""
        outputs = inputs @ layer[name]
        if name not in adapter:
            return outputs
        a, b = adapter[name]
        return outputs + self.problem["scale"] * (inputs @ a) @ b

    def rotate(self, heads, angles):
        """Rotates the halves of [head, token, number] by the angles of each token."""
        first, second = heads.chunk(2, -1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    def norm(self, scale, hidden):
        square = hidden.square().mean(-1, keepdim=True)
        return hidden * torch.rsqrt(square + self.problem["epsilon"]) * scale


def _unstacked(base, part):
    """The layers of a stack, each with its matrices by name."""
    names = [name for name in base if name.startswith(f"{part}/")]
    stacks = [base[name].unbind(0) for name in names]
    return [dict(zip((n.split("/")[1] for n in names), layer)) for layer in zip(*stacks)]


def _read(flat, problem):
    """Reads the decoder, and (support, query) of each persona; see `run_peer`."""
    base = {
        name.removeprefix("base/"): torch.from_numpy(x)
        for name, x in flat.items() if name.startswith("base/")
    }  # fmt: skip
    fields = ("ids", "position", "visible", "slot", "target", "task")

    def side(number, name):
        arrays = (flat[f"data/{number}/{name}/{field}"] for field in fields)
        return tuple(torch.from_numpy(x if x.dtype == bool else x.astype(np.int64)) for x in arrays)

    episodes = [(side(n, "support"), side(n, "query")) for n in range(problem["personas"])]
    return Decoder(parameters(flat), base, problem), episodes


if __name__ == "__main__":
    run_peer(__doc__.splitlines()[0], WAYS, _read)
