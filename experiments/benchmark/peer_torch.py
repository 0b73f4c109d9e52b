"""Time one second-order MTML step as PyTorch users write it, in a process of its own.

`python -m experiments.benchmark.peer_torch FOLDER --way=loop` reads `problem.npz` and
`problem.json`, which `experiments.benchmark --peers` writes, and writes `loop.npz` (loss and
meta-gradient) and `loop.json` (seconds) into the same folder. This file does not import JAX.

Ways: `loop` is a Python loop over personas with `create_graph=True`; `higher` is the same loop
with the library of that name; `func` is `torch.func.vmap` of `torch.func.grad` over a few
personas at a time. Contexts, responses and personas are padded to the longest of each dialogue,
in `func` to the longest of all dialogues.
"""

import argparse
import json
import math
import pathlib
import time

import numpy as np
import torch
from torch.nn import functional

from experiments.benchmark.memory import most_resident

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
        self.weights = torch.nn.ParameterDict(
            {name.replace("/", "-"): torch.nn.Parameter(x) for name, x in params.items()}
        )

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--way", choices=WAYS, default="loop")
    parser.add_argument("--repeats", type=int, default=2, help="timed steps, after one that warms up")
    parser.add_argument("--chunk", type=int, default=4, help="func: personas at a time")
    given = parser.parse_args()
    problem = json.loads((given.folder / "problem.json").read_text())
    with np.load(given.folder / "problem.npz", allow_pickle=False) as arrays:
        flat = dict(arrays)
    names = [name for name in flat if name.startswith("params/")]
    params = {name.removeprefix("params/"): torch.from_numpy(flat[name]) for name in names}
    model = Model(params, problem["heads"], problem["layers"], problem["activation"])
    episodes = _episodes(flat, problem["personas"], together=given.way == "func")
    step = {"loop": _loop, "higher": _higher, "func": _func}[given.way]
    seconds = []
    for number in range(given.repeats + 1):
        print(f"{given.way}: step {number + 1} of {given.repeats + 1}", flush=True)
        clock = time.perf_counter()
        loss, grads = step(model, episodes, problem["alpha"], problem["inner_lr"], given.chunk)
        seconds.append(time.perf_counter() - clock)
    np.savez(
        given.folder / f"{given.way}.npz",
        loss=np.float32(loss),
        **{f"grads/{n.replace('-', '/')}": g.detach().numpy() for n, g in grads.items()},
    )
    report = {
        "seconds": seconds[1:],  # without the warm-up
        "resident_bytes": most_resident(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    (given.folder / f"{given.way}.json").write_text(json.dumps(report))


def _episodes(flat, personas, together):
    """Reads (support, query) of each persona; each is (context, response, persona) of padded ids."""

    def side(number, name):
        fields = ("context", "response_inputs", "response", "persona_inputs", "persona")
        ids = [flat[f"data/{number}/{name}/{field}"].astype(np.int64) for field in fields]
        context, *targets = map(torch.from_numpy, ids)
        return context, tuple(targets[:2]), tuple(targets[2:])

    episodes = [(side(n, "support"), side(n, "query")) for n in range(personas)]
    if not together:
        return episodes
    leaves, (spec, *_) = zip(*map(torch.utils._pytree.tree_flatten, episodes))
    stacked = []
    for column in zip(*leaves):
        shape = [max(sizes) for sizes in zip(*(x.shape for x in column))]
        padded = torch.zeros(personas, *shape, dtype=torch.int64)
        for n, x in enumerate(column):
            padded[n, : x.shape[0], : x.shape[1]] = x
        stacked.append(padded)
    return torch.utils._pytree.tree_unflatten(stacked, spec)


def _loop(model, episodes, alpha, inner_lr, chunk):
    del chunk
    names = [name for name, _ in model.named_parameters()]
    values = list(model.parameters())
    total, grads = 0.0, [torch.zeros_like(x) for x in values]
    for support, query in episodes:
        inner = torch.autograd.grad(model(*support, alpha), values, create_graph=True)
        adapted = {n: x - inner_lr * g for n, x, g in zip(names, values, inner)}
        loss = torch.func.functional_call(model, adapted, (*query, alpha))
        for grad, more in zip(grads, torch.autograd.grad(loss, values)):
            grad += more
        total += loss.item()
    return total / len(episodes), _named(names, grads, len(episodes))


def _higher(model, episodes, alpha, inner_lr, chunk):
    import higher

    del chunk
    optimiser = torch.optim.SGD(model.parameters(), lr=inner_lr)
    total = 0.0
    model.zero_grad()
    for support, query in episodes:
        with higher.innerloop_ctx(model, optimiser, copy_initial_weights=False) as (fast, inner):
            inner.step(fast(*support, alpha))
            loss = fast(*query, alpha)
            loss.backward()
            total += loss.item()
    names, values = zip(*model.named_parameters())
    return total / len(episodes), _named(names, [x.grad for x in values], len(episodes))


def _func(model, episodes, alpha, inner_lr, chunk):
    params = {name: x.detach() for name, x in model.named_parameters()}

    def loss(params, examples):
        return torch.func.functional_call(model, params, (*examples, alpha))

    def meta(params, support, query):
        inner = torch.func.grad(loss)(params, support)
        adapted = {name: x - inner_lr * inner[name] for name, x in params.items()}
        return loss(adapted, query)

    grads, losses = torch.func.vmap(
        torch.func.grad_and_value(meta), in_dims=(None, 0, 0), chunk_size=chunk
    )(params, *episodes)
    return losses.mean().item(), _named(grads, (g.sum(0) for g in grads.values()), len(losses))


def _named(names, grads, personas):
    return {n.removeprefix("weights."): g / personas for n, g in zip(names, grads)}


if __name__ == "__main__":
    main()
