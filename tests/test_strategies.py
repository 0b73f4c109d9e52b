"""The table of strategies, and all that follows from a row of it."""

import pytest

from mtml_jax.strategies import STRATEGIES, TASKS, Phase, Strategy, task_weights

RESPONSE, PERSONA = ("response",), ("persona",)


def test_the_phases_are_the_protocols():
    assert {name: strategy.phases for name, strategy in STRATEGIES.items()} == {
        "std": ((None, RESPONSE),),
        "std_p": ((None, RESPONSE),),
        "multitask": ((None, TASKS),),
        "paml": ((RESPONSE, RESPONSE),),
        "mtml": ((TASKS, TASKS),),
        "amtml": ((RESPONSE, PERSONA), (PERSONA, RESPONSE)),
    }


@pytest.mark.parametrize(
    "what, names",
    [
        ("adapts", {"paml", "mtml", "amtml"}),
        ("reads_alpha", {"mtml", "multitask"}),
        ("needs_statements", {"std_p", "mtml", "amtml", "multitask"}),
        ("persona_in_context", {"std_p"}),
    ],
)
def test_what_follows_from_the_phases(what, names):
    assert {name for name, strategy in STRATEGIES.items() if getattr(strategy, what)} == names


def test_which_runs_reconstruct_a_persona():
    def reconstructing(alpha):
        return {name for name, strategy in STRATEGIES.items() if strategy.reconstructs(alpha)}

    assert reconstructing(0.8) == {"mtml", "multitask", "amtml"}
    assert reconstructing(1.0) == {"amtml"}
    # Whether the tasks that adapt include the persona does not matter to the initial model.
    assert not Strategy("both inside", (Phase(TASKS, RESPONSE),)).reconstructs(0.8)


def test_iterations_count_from_one():
    """After no finished step comes iteration 1, which is odd: AMTML adapts on personas."""
    amtml = STRATEGIES["amtml"]
    assert [amtml.phases[amtml.phase_of(step)].inner for step in range(3)] == [
        PERSONA, RESPONSE, PERSONA,
    ]  # fmt: skip
    assert STRATEGIES["mtml"].phase_of(7) == 0


@pytest.mark.parametrize(
    "tasks, weights", [(TASKS, (0.75, 0.25)), (RESPONSE, (1.0, 0.0)), (PERSONA, (0.0, 1.0))]
)
def test_equation_6(tasks, weights):
    assert task_weights(tasks, 0.75) == weights
