"""List the rows of the study: what is trained and tested, and why."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mtml_jax.config import TrainConfig
from mtml_jax.strategies import STRATEGIES


class Row(NamedTuple):
    """A system of the study.

    An ablation that changes no setting shares the training of the row that it is compared with.
    """

    name: str  # of its cells
    label: str  # in tables and figures
    group: str  # "paper" for a row of tables 2 and 3, "control" or "ablation"
    changes: Mapping[str, Any]  # settings of `TrainConfig` that differ from the study's
    checkpoint: str = "best"  # the one that is tested, "best" or "latest"
    base: str | None = None  # the row that an ablation is compared with

    @property
    def trained_as(self) -> str:
        """The row whose training it uses."""
        return self.name if self.changes or self.base is None else self.base


def _ablation(base, what, label, changes):
    inherited = {row.name: row for row in _STRATEGIES}[base]
    return Row(
        f"{base}-{what}", f"{inherited.label}, {label}", "ablation",
        {**inherited.changes, **changes} if changes else {},
        "best" if changes else what, base,
    )  # fmt: skip


def _rows_of(name, strategy):
    """Lists a strategy's rows: one for each alpha, which is in the name if there are several."""
    group, alphas = strategy.group, strategy.alphas
    if not alphas:
        return [Row(name, strategy.label, group, {"strategy": name})]
    names = [f"{name}-{alpha}" if len(alphas) > 1 else name for alpha in alphas]
    changes = [{"strategy": name, "alpha": alpha} for alpha in alphas]
    return [Row(n, f"{strategy.label} {c['alpha']}", group, c) for n, c in zip(names, changes)]


_STRATEGIES = tuple(row for pair in STRATEGIES.items() for row in _rows_of(*pair))
_ABLATIONS = (
    _ablation("mtml-0.8", "first_order", "first order", {"gradient": "first_order"}),
    _ablation("mtml-0.8", "distinct_start", "distinct start tokens", {"distinct_start": True}),
    _ablation("amtml", "distinct_start", "distinct start tokens", {"distinct_start": True}),
    _ablation("mtml-0.8", "shared_start", "shared start token", {"distinct_start": False}),
    _ablation("amtml", "shared_start", "shared start token", {"distinct_start": False}),
    _ablation("mtml-0.8", "own_context", "persona from own side", {"persona_context": "own"}),
    _ablation("mtml-0.8", "3_steps", "3 inner steps", {"inner_steps": 3}),
    _ablation("paml", "latest", "last checkpoint", {}),
    _ablation("mtml-0.8", "latest", "last checkpoint", {}),
    _ablation("amtml", "latest", "last checkpoint", {}),
)
ROWS = {row.name: row for row in (*_STRATEGIES, *_ABLATIONS)}
GROUPS = {
    "main": ("std", "std_p", "paml", "mtml-0.8", "amtml", "multitask"),
    "paper": tuple(row.name for row in _STRATEGIES),
    "ablations": tuple(row.name for row in _ABLATIONS),
    "all": tuple(ROWS),
}


def chosen_rows(
    names: Sequence[str], glove: str | None = None, base: TrainConfig = TrainConfig()
) -> list[Row]:
    """Lists the rows of some names and groups, each once, in the order of the table.

    Args:
      names: names of `ROWS` or of `GROUPS`. An ablation whose change `base` has already made is
        no row of a group.
      glove: file of word vectors; with it, MTML 0.8 initialised from them is also a row of
        "ablations" and "all".
      base: settings of the study.

    Raises:
      ValueError: a name is neither a row nor a group.
    """
    rows = dict(ROWS)
    groups = dict(GROUPS)
    if glove:
        row = _ablation("mtml-0.8", "glove", "GloVe embeddings", {"glove": glove})
        rows[row.name] = row
        groups |= {name: (*groups[name], row.name) for name in ("ablations", "all")}
    wanted: set[str] = set()
    for name in names:
        if name not in rows and name not in groups:
            raise ValueError(
                f"expected --rows of {', '.join(groups)} (groups), {', '.join(rows)}, got "
                f"--rows={','.join(names)}; mtml-0.8-glove needs --glove"
            )
        group = (n for n in groups.get(name, ()) if not _repeats(rows[n], base))
        wanted.update(group if name in groups else (name,))
    return [row for row in rows.values() if row.name in wanted]


def _repeats(row: Row, base: TrainConfig) -> bool:
    """Whether an ablation has the settings of the row that it is compared with."""
    if row.base is None or not row.changes:
        return False
    return config_of(row, base, 0) == config_of(ROWS[row.base], base, 0)


def config_of(row: Row, base: TrainConfig, seed: int) -> TrainConfig:
    """Returns the settings of a row's training.

    Patience has no limit, so that all rows train for the same number of iterations of `base`;
    validation still selects the best checkpoint.
    """
    trained = ROWS.get(row.trained_as, row)
    return dataclasses.replace(base, **trained.changes, seed=seed, patience=base.iterations + 1)
