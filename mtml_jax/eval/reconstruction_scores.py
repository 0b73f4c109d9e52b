"""Score reconstructed personas against the number of turns seen."""

import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from mtml_jax.eval import metrics
from mtml_jax.eval.reconstruction import VARIANTS, Scored, Subject
from mtml_jax.eval.scores import add_rows
from mtml_jax.eval.statistics import with_interval


def summarise_cases(
    subjects: Sequence[Subject], scored: Iterable[Scored], as_read: Callable[[Iterable[str]], str],
    *, seed: int,
    resamples: int = 1000
) -> list[dict]:
    """Scores by number of turns seen, each with its interval over personas.

    True statements are compared as the model reads them (`as_read` of its encoding): an unknown
    word is `<unk>` on both sides. A row counts the dialogues that have that many turns, and no others.

    Intervals at 95 % resample personas, `resamples` times by `seed`.

    Returns:
      A row for each variant and number of turns: "variant", "turns_seen", "dialogues",
      "personas", "tokens", and "scores", a table of name -> {"value", "low", "high"}:
      token_f1 and statement_recall (means over dialogues) and ppl (over all tokens). In scores
      that end in "_shuffled", the first two compare the same text with another persona's
      statements, and ppl is that of the same true persona after another persona's dialogue, so
      that the tokens are the same; "_own_minus_shuffled" is paired.
    """

    @functools.cache
    def read(statements):
        """The persona and its statements as the model reads them."""
        return as_read(statements), tuple(as_read([statement]) for statement in statements)

    kept: dict[tuple[str, int], list[tuple[int, list[float]]]] = {}
    for case in scored:
        subject = subjects[case.subject]
        numbers = [1.0, *case.nll, case.tokens]
        for statements in (subject.dialogue.statements, subject.other.statements):
            whole, single = read(statements)
            numbers.append(metrics.token_f1(case.text, whole))
            numbers.append(metrics.statement_recall(case.text, single))
        kept.setdefault((case.variant, case.turns_seen), []).append((subject.persona, numbers))
    rows = []
    for variant, seen in sorted(kept, key=lambda place: (VARIANTS.index(place[0]), place[1])):
        persona_of, sums_of = zip(*kept[variant, seen])
        personas, places = np.unique(persona_of, return_inverse=True)
        sums = add_rows(len(personas), places, sums_of)
        draws = {"personas": len(sums), "seed": seed, "resamples": resamples}
        scores = {
            name: with_interval(lambda drawn: score(sums[drawn].sum(axis=0)), **draws)
            for name, score in _score_functions().items()
        }
        total = sums.sum(axis=0)
        row = {"variant": variant, "turns_seen": seen, "dialogues": int(total[0])}
        row |= {"personas": len(sums), "tokens": int(total[3]), "scores": scores}
        rows.append(row)
    return rows


def _score_functions() -> dict[str, Callable[[np.ndarray], float]]:
    """Name -> function from the sums of `summarise_cases` to a score.

    Sums: dialogues; nll, own and shuffled; tokens; F1 and recall, own; F1 and recall, shuffled.
    """

    def side(n):  # 0: own, 1: shuffled
        return {
            "token_f1": lambda s: s[4 + 2 * n] / s[0],
            "statement_recall": lambda s: s[5 + 2 * n] / s[0],
            "ppl": lambda s: metrics.perplexity(s[1 + n], s[3]),
        }

    own, shuffled = side(0), side(1)
    table = {}
    for name in own:
        table[name] = own[name]
        table[f"{name}_shuffled"] = shuffled[name]
        table[f"{name}_own_minus_shuffled"] = functools.partial(
            lambda name, s: own[name](s) - shuffled[name](s), name
        )
    return table
