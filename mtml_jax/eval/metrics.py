"""Compute the scores of replies: numbers and texts in, numbers out.

Texts are words joined by blanks. Scores over many replies are made from statistics that
add up, one row per reply: sum them over a persona, over drawn personas or over all, and
score the sum. `statistics.bootstrap_interval` resamples them.
"""

import collections
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
from sacrebleu.metrics import BLEU

_ORDERS = 4  # of BLEU's n-grams
_SMOOTHING = "exp"  # sacreBLEU's own choice for a corpus


def perplexity(nll: float, tokens: float) -> float:
    """exp(nll / tokens) of nats summed over one or more tokens; infinity if it overflows."""
    try:
        return math.exp(float(nll) / float(tokens))
    except OverflowError:
        return math.inf


def bleu_statistics(replies: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Counts the statistics of BLEU (Papineni et al., 2002, section 2), one reference a reply.

    Args:
      replies: N texts.
      references: N texts.

    Returns:
      int64 [N, 10]: matched n-grams for n = 1 to 4, n-grams of the reply for n = 1 to 4,
      words of the reply, words of the reference.

    Raises:
      ValueError: the numbers of texts differ.
    """
    if len(replies) != len(references):
        raise ValueError(
            f"expected one reference for every reply, got {len(replies)} replies and "
            f"{len(references)} references"
        )
    rows = np.zeros((len(replies), 2 * _ORDERS + 2), np.int64)
    for row, reply, reference in zip(rows, replies, references):
        words, wanted = reply.split(), reference.split()
        for n in range(1, _ORDERS + 1):
            have, want = _ngrams(words, n), _ngrams(wanted, n)
            row[n - 1] = (have & want).total()
            row[_ORDERS + n - 1] = have.total()
        row[-2:] = len(words), len(wanted)
    return rows


def corpus_bleu(statistics_sum: Sequence[int]) -> float:
    """BLEU of a corpus, 0 to 100, as sacreBLEU computes it; see `bleu_signature`.

    It is computed from rows of `bleu_statistics` added up, int [10], with exponential
    smoothing; 0 where no word matches.
    """
    return _bleu(statistics_sum, _SMOOTHING)


def dialogue_bleu(statistics_sum: Sequence[int]) -> float:
    """BLEU without smoothing, 0 to 100, for means over dialogues.

    The reference code of PAML (Madotto et al., 2019) runs Moses' multi-bleu.perl on every
    dialogue and averages: most dialogues match no 4-gram and count 0. Its numbers compare
    with the mean of this over dialogues, and not with `corpus_bleu`. (The script rounds
    to two digits; this does not.)

    It is computed from rows of `bleu_statistics` of one dialogue added up, int [10]; 0 where
    n-grams of any order match nowhere.
    """
    return _bleu(statistics_sum, "none")


def bleu_signature() -> str:
    """Returns sacreBLEU's signature of `corpus_bleu`, to be printed with its values."""
    bleu = BLEU(tokenize="none", smooth_method=_SMOOTHING)
    bleu.corpus_score([""], [[""]])  # it has no signature before it has seen references
    return str(bleu.get_signature())


def distinct(texts: Iterable[str], n: int) -> float:
    """Distinct n-grams divided by all n-grams, in [0, 1] (Li et al., 2016).

    No n-gram crosses from one text to the next; the share is 0 where there are no n-grams.
    """
    counts: collections.Counter[tuple[str, ...]] = collections.Counter()
    for text in texts:
        counts.update(_ngrams(text.split(), n))
    return len(counts) / max(counts.total(), 1)


def repeat_share(replies: Sequence[str], train_statements: Iterable[str]) -> float:
    """The share of replies, in [0, 1], that are a persona statement of train, word for word.

    Raw consistency rewards reciting statements, even those of other personas. Full stops are
    dropped and other punctuation marks are words, on both sides, as in
    `mtml_jax.data.text.persona_text`. An empty reply repeats nothing; 0 without replies.
    """
    known = {_bare(statement) for statement in train_statements} - {()}
    return sum(_bare(reply) in known for reply in replies) / max(len(replies), 1)


def token_f1(predicted: str, gold: str) -> float:
    """The harmonic mean of precision and recall of words, counted as often as they occur.

    As for SQuAD (Rajpurkar et al., 2016), but words are compared as they are. F1 lies in [0, 1]
    and is 1 where both texts are empty.
    """
    have, want = (collections.Counter(text.split()) for text in (predicted, gold))
    words = have.total() + want.total()
    return 2.0 * (have & want).total() / words if words else 1.0


def statement_recall(predicted: str, statements: Iterable[str]) -> float:
    """The share of the statements that a text contains word for word, as consecutive words.

    Full stops and punctuation marks are treated as in `repeat_share`. To find a statement with
    an unknown word, pass it as the vocabulary reads it. NaN without statements.
    """
    text = _bare(predicted)
    wanted = [bare for bare in map(_bare, statements) if bare]
    found = sum(any(text[i : i + len(bare)] == bare for i in range(len(text))) for bare in wanted)
    return found / len(wanted) if wanted else math.nan


def _bleu(statistics_sum, smooth_method):
    values = [int(x) for x in statistics_sum]
    return BLEU.compute_bleu(
        correct=values[:_ORDERS], total=values[_ORDERS : 2 * _ORDERS], sys_len=values[-2],
        ref_len=values[-1], smooth_method=smooth_method
    ).score


def _ngrams(words, n):
    return collections.Counter(zip(*(words[i:] for i in range(n))))


def _bare(text):
    """The words without full stops, other punctuation marks as words of their own."""
    return tuple(re.sub(r"([,!?;])", r" \1 ", text.replace(".", " ")).split())
