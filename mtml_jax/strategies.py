"""Declare the strategies: which tasks adapt a persona, and which tasks judge the adaptation.

This table is the only place that names strategies. What data a strategy needs, which losses it
computes, what is printed about it, and its rows in the study all follow from its row here, so
that adding a strategy means adding a row.
"""

import dataclasses
from typing import NamedTuple

TASKS = ("response", "persona")  # section 2.2, equations 2 and 5
_RESPONSE, _PERSONA = ("response",), ("persona",)


class Phase(NamedTuple):
    """The tasks of one kind of iteration.

    Attributes:
      inner: tasks whose loss on the support set the inner step descends (eq. 11); None for
        supervised training, which has no inner step.
      outer: tasks whose loss on the query set the outer step descends (eqs. 12 and 14).
    """

    inner: tuple[str, ...] | None
    outer: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Strategy:
    """One way to train.

    Attributes:
      label: name in tables and figures.
      phases: iteration i runs phase i modulo their number; iterations count from 1.
      persona_in_context: whether persona statements stand in front of the context in training
        and validation.
      group: of its rows in the study; "paper" for rows of the paper's tables 2 and 3.
      alphas: weights of the response loss that the study trains it with; empty where no
        phase has both tasks.
    """

    label: str
    phases: tuple[Phase, ...]
    persona_in_context: bool = False
    group: str = "control"
    alphas: tuple[float, ...] = ()

    @property
    def adapts(self) -> bool:
        """Whether training takes inner steps."""
        return self.phases[0].inner is not None

    @property
    def packed_tasks(self) -> set[tuple[str, ...]]:
        """The sets of tasks whose targets are packed together."""
        return {tasks for phase in self.phases for tasks in phase if tasks}

    @property
    def reads_alpha(self) -> bool:
        """Whether a loss weighs the two tasks against each other (eq. 6)."""
        return TASKS in self.packed_tasks

    @property
    def needs_statements(self) -> bool:
        """Whether every training dialogue must come with persona statements."""
        return self.persona_in_context or any("persona" in tasks for tasks in self.packed_tasks)

    def reconstructs(self, alpha: float) -> bool:
        """Whether training with this alpha makes the initial model write down personas."""
        return any(dict(zip(TASKS, task_weights(p.outer, alpha)))["persona"] for p in self.phases)

    def phase_of(self, step: int) -> int:
        """The index of the phase that the iteration after `step` finished ones runs."""
        return (step + 1) % len(self.phases)


STRATEGIES = {
    "std": Strategy("Std", (Phase(None, _RESPONSE),), group="paper"),
    "std_p": Strategy("Std_p", (Phase(None, _RESPONSE),), persona_in_context=True, group="paper"),
    "paml": Strategy("PAML", (Phase(_RESPONSE, _RESPONSE),), group="paper"),
    "mtml": Strategy(
        "MTML", (Phase(TASKS, TASKS),), group="paper", alphas=(0.5, 0.6, 0.7, 0.8, 0.9)
    ),
    "amtml": Strategy(
        "AMTML", (Phase(_RESPONSE, _PERSONA), Phase(_PERSONA, _RESPONSE)), group="paper"
    ),
    # Both losses of MTML without an inner step: is it the task or the meta-learning that helps?
    "multitask": Strategy("Multi-task", (Phase(None, TASKS),), alphas=(0.8,)),
}


def task_weights(tasks: tuple[str, ...], alpha):
    """The weights of the response and the persona loss (eq. 6).

    Args:
      tasks: the tasks of a phase; both, or one.
      alpha: weight of the response loss where there are both.

    Returns:
      (alpha, 1 - alpha), (1, 0) or (0, 1).
    """
    if tasks == TASKS:
        return alpha, 1.0 - alpha
    return float("response" in tasks), float("persona" in tasks)
