"""Take and time the second-order MTML steps of a PyTorch model, in a process of its own.

`run_peer` reads `problem.npz` and `problem.json`, which `experiments.benchmark --peers` writes into
a folder, and writes for `--way=loop` `loop.npz` (loss and meta-gradient) and `loop.json` (seconds)
into the same folder. This file does not import JAX.

Ways: `loop` is a Python loop over personas with `create_graph=True`; `higher` is the same loop
with the library of that name; `func` is `torch.func.vmap` of `torch.func.grad` over a few
personas at a time, padded to the longest of all dialogues.
"""

import argparse
import json
import pathlib
import time

import numpy as np
import torch

from experiments.benchmark.memory import most_resident


def run_peer(description: str, ways, read) -> None:
    """Times the steps of one way, which the command line names.

    Args:
      description: what --help says.
      ways: the names of the ways that the model allows.
      read: function of (the arrays of problem.npz by name, problem.json) -> (model, the (support,
        query) of each persona). Sets are tuples of arguments of the model, whose last argument is
        alpha; the gradient is that of the model's parameters, which are named with "-" for "/".
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--way", choices=ways, default="loop")
    parser.add_argument("--repeats", type=int, default=2, help="timed steps, after one that warms up")
    parser.add_argument("--chunk", type=int, default=4, help="func: personas at a time")
    given = parser.parse_args()
    problem = json.loads((given.folder / "problem.json").read_text())
    with np.load(given.folder / "problem.npz", allow_pickle=False) as arrays:
        model, episodes = read(dict(arrays), problem)
    if given.way == "func":
        episodes = _stacked(episodes)
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


def parameters(flat) -> torch.nn.ParameterDict:
    """The initial parameters among the arrays of problem.npz."""
    prefix = "params/"
    return torch.nn.ParameterDict({
        name.removeprefix(prefix).replace("/", "-"): torch.nn.Parameter(torch.from_numpy(x))
        for name, x in flat.items() if name.startswith(prefix)
    })  # fmt: skip


def _stacked(episodes):
    """Stacks the tensors of all personas, padded with zeros to the largest."""
    leaves, (spec, *_) = zip(*map(torch.utils._pytree.tree_flatten, episodes))
    stacked = []
    for column in zip(*leaves):
        shape = [max(sizes) for sizes in zip(*(x.shape for x in column))]
        padded = torch.zeros(len(column), *shape, dtype=column[0].dtype)
        for n, x in enumerate(column):
            padded[(n, *map(slice, x.shape))] = x
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
