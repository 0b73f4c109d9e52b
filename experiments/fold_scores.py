"""What the rows of folds come to: the statistics of every system, shot and epoch."""

import functools

import numpy as np
from tqdm import tqdm

from experiments.fold_rows import work_of
from experiments.tested import Run
from mtml_jax.data.demo_judge import judge_reply
from mtml_jax.eval.folds import FoldPlan
from mtml_jax.eval.scores import Answer, HeldOut, Statistics, count
from mtml_jax.nli.scorer import Scorer


def statistics_of(
    run: Run, plans: dict[int, list[FoldPlan]], rows: dict, scorer: Scorer | None
) -> dict[tuple[str, int, int], Statistics]:
    """Counts what the replies and likelihoods of each system come to.

    Args:
      run: the model tested, and the personas.
      plans: the folds of each k.
      rows: of `FoldsFile`, one for every fold of every system.
      scorer: for C-scores; None for none.

    Returns:
      (system, shots, epoch) -> Statistics; ("human", 0, 0) first.
    """
    tests = {k: [_held_out(run, plan) for plan in plans[k]] for k in plans}
    systems = {("human", 0, 0): [Answer(test.gold) for test in tests[0]]}
    for system, k in work_of(plans):
        found = [rows[system, k, p.persona, p.dialogue] for p in plans[k]]
        for stage, epoch in enumerate(found[0]["epochs"]):
            systems[system, k, epoch] = [
                Answer(tuple(r["replies"][stage]), r["nll"][stage], r["tokens"]) for r in found
            ]
    labels = {}
    if scorer:
        _label_all(scorer, tests, systems)
        labels["c"] = scorer.labels
        labels["c_uncalibrated"] = functools.partial(scorer.labels, calibrated=False)
    show = tqdm(systems.items(), desc="scoring", unit="row", disable=None, leave=False)
    return {
        (system, k, epoch): count(
            tests[k], answers, known_statements=run.known_statements, labels=labels
        )
        for (system, k, epoch), answers in show
    }


def effective_shots(plans: dict[int, list[FoldPlan]]) -> dict[str, float]:
    """Dialogues that folds adapt to on average, by k."""
    return {str(k): float(np.mean([len(plan.own) for plan in plans[k]])) for k in plans}


def _label_all(scorer, tests, systems):
    """Scores all pairs at once, with the time left shown; later calls find them known."""
    pairs = {
        (reply, statement)
        for (_, k, _), answers in systems.items()
        for test, answer in zip(tests[k], answers)
        for reply in answer.replies
        for statement in (*test.statements, *test.shuffled)
    }
    with tqdm(total=len(pairs), desc="NLI", unit="pair", disable=None) as bar:
        scorer.scores(sorted(pairs), bar.update)


def _held_out(run: Run, plan: FoldPlan) -> HeldOut:
    persona = run.personas[plan.persona]
    dialogue = persona.dialogues[plan.dialogue]
    others = run.personas[plan.other].dialogues
    facts = run.facts.get(persona.name)

    def verdict(reply):
        found = judge_reply(reply, facts).values()
        return next((v for v in ("contradicted", "stated") if v in found), "ignored")

    return HeldOut(
        plan.persona,
        tuple(turn.response for turn in dialogue.turns),
        dialogue.statements,
        others[plan.dialogue % len(others)].statements,
        verdict if facts else None,
    )
