"""Consistency scorer: does a reply entail, contradict or leave open a persona statement?

    scorer = load_scorer("runs/nli", cache="runs/x/nli.jsonl")
    scorer.digest                              # what the numbers depend on
    scorer.labels([(reply, statement), ...])   # int8: +1, 0, -1, calibrated
    scorer.labels(pairs, calibrated=False)     # from the same forward pass

An NLI classifier trained on balanced classes sees too many contradictions in real
dialogues, where most statements have nothing to do with most replies. Calibration adds
one number to the log-probability of each class (Saerens et al., 2002: the ratio of the
priors), fitted once and kept in `calibration.json` beside the weights.

Columns of scores: entailment, neutral, contradiction.
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import PartitionSpec

from mtml_jax.nli import bert
from mtml_jax.nli.dialogue_nli import CLASSES
from mtml_jax.nli.huggingface import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    WORDS,
    Classifier,
    pad,
    padded_width,
    read_classifier,
    tokenise,
)
from mtml_jax.runs.journal import read_journal
from mtml_jax.sharding import PERSONAS, local_mesh, replicate, split_personas

CALIBRATION = "calibration.json"
SIGNS = np.array([1, 0, -1], np.int8)  # of entailment, neutral, contradiction

_ROWS = (64, 8)  # of a batch; what is left over goes in small ones

Pair = tuple[str, str]


def load_scorer(
    folder: str | os.PathLike, cache: str | os.PathLike | None = None, *, flag: str = "--nli"
) -> "Scorer":
    """Reads a BERT NLI classifier, its labels' names and, if there, its calibration.

    Args:
      folder: config.json, model.safetensors and vocab.txt in Hugging Face's layout; and
        calibration.json if `experiments.train_nli` made it.
      cache: JSON lines file that scores are kept in, made if it is not there; for one
        process at a time. Rows of other scorers stay in it unused.
      flag: the flag that named the folder, for messages.

    Raises:
      FileNotFoundError: the folder or a file is missing.
      ValueError: it is no BERT, its weights do not fit, its labels are unknown, or
        calibration or cache are malformed.
      ImportError: the libraries that read such files are not installed.
    """
    model = read_classifier(folder, flag)
    return Scorer(model, read_bias(folder), digest(folder), cache)


class Scorer:
    """Scores pairs of (reply, statement); see `load_scorer`.

    A pair is scored once, however often it is asked for; with a cache file also across
    processes, killed ones among them.

    Attributes:
      digest: 16 hexadecimal digits that stand for the files behind all scores.
      bias: float64 [3], added to log-probabilities by calibration; zeros without one.
    """

    def __init__(
        self, model: Classifier, bias: np.ndarray, digest: str, cache: str | os.PathLike | None
    ):
        self.digest = digest
        self.bias = bias
        self._model = model
        self._mesh = local_mesh(min(_ROWS))
        self._params = replicate(model.params, self._mesh)
        self._forward = _compiled(model.config, self._mesh)
        self._cache = cache
        self._known = {} if cache is None else _read_cache(Path(cache), digest)

    def labels(
        self,
        pairs: Sequence[Pair],
        progress: Callable[[int], object] | None = None,
        *,
        calibrated: bool = True,
    ) -> np.ndarray:
        """The most likely class of each pair: int8 [N], +1 entailment, 0 neutral, -1 contradiction.

        Args:
          pairs: (reply, statement), the text as in the corpus.
          progress: is told how many pairs have just been done; they add up to N.
          calibrated: add `bias` first.
        """
        scores = self.scores(pairs, progress)
        return labels_of(scores, self.bias if calibrated else None)

    def scores(
        self, pairs: Sequence[Pair], progress: Callable[[int], object] | None = None
    ) -> np.ndarray:
        """Uncalibrated log-probabilities of the three classes, float32 [N, 3]; see `labels`."""
        pairs = [(reply, statement) for reply, statement in pairs]
        waiting: dict[Pair, int] = {}  # times each is asked for
        for pair in pairs:
            if pair not in self._known:
                waiting[pair] = waiting.get(pair, 0) + 1
        tell = progress or (lambda count: None)
        tell(len(pairs) - sum(waiting.values()))
        for chunk, scores in self._forward_batches(list(waiting)):
            self._known.update(zip(chunk, scores, strict=True))
            self._keep(chunk, scores)
            tell(sum(waiting[pair] for pair in chunk))
        return np.array([self._known[pair] for pair in pairs], np.float32).reshape(-1, 3)

    def _forward_batches(self, pairs):
        tokens = tokenise(self._model, pairs)
        groups: dict[int, list[int]] = {}
        for n, (ids, _) in enumerate(tokens):
            groups.setdefault(padded_width(len(ids), self._model.config), []).append(n)
        for width, members in sorted(groups.items()):
            for some in _cut(members):
                rows = next(r for r in sorted(_ROWS) if r >= len(some))
                batch = pad([tokens[n] for n in some], rows, width)
                scores = self._forward(self._params, *split_personas(batch, self._mesh))
                yield [pairs[n] for n in some], np.asarray(scores)[: len(some)]

    def _keep(self, pairs, scores):
        if self._cache is None:
            return
        with open(self._cache, "a", encoding="utf-8") as file:
            for pair, row in zip(pairs, scores, strict=True):
                # A float32 as a Python float is exact, and comes back exactly.
                kept = [self.digest, *pair, *(float(score) for score in row)]
                file.write(json.dumps(kept) + "\n")


def labels_of(scores: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """The signs of the most likely classes.

    Args:
      scores: float [N, 3] log-probabilities.
      bias: float [3] to be added, or None.

    Returns:
      int8 [N]: +1 entailment, 0 neutral, -1 contradiction.
    """
    shifted = scores if bias is None else scores + np.asarray(bias)[None]
    return SIGNS[np.argmax(shifted, axis=-1)]


def fit_bias(scores: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The bias with the least weighted log loss; neutral's is 0, which leaves two to fit.

    Minimises -sum_n w_n log softmax(scores_n + bias)[classes_n], convex in the bias, by
    Newton's method with steps of at most 1.

    Args:
      scores: float [N, 3] log-probabilities.
      classes: int [N], indices of the columns.
      weights: float [N], not negative.

    Returns:
      float64 [3].

    Raises:
      ValueError: a class has no weight, so that its bias would be without end.
    """
    shares = np.bincount(classes, weights, minlength=3) / weights.sum()
    if not np.all(shares > 0):
        missing = CLASSES[int(np.argmin(shares))]
        raise ValueError(f"found no pair of class {missing}, want all three to calibrate on")
    weights = weights / weights.sum()
    bias, free = np.zeros(3), np.array([0, 2])
    for _ in range(100):
        expected = np.exp(log_softmax(scores.astype(np.float64) + bias[None]))
        gradient = (weights @ expected - shares)[free]
        hessian = np.diag(weights @ expected) - (expected * weights[:, None]).T @ expected
        step = np.linalg.solve(hessian[np.ix_(free, free)], gradient)
        bias[free] -= step / max(1.0, np.abs(step).max())
        if np.abs(step).max() < 1e-10:
            break
    return bias


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Log-probabilities along the last axis, on the host in the type of `scores`."""
    centred = scores - scores.max(-1, keepdims=True)
    return centred - np.log(np.exp(centred).sum(-1, keepdims=True))


def digest(folder: str | os.PathLike) -> str:
    """16 hexadecimal digits of the SHA-256 over all files that scores depend on."""
    whole = hashlib.sha256()
    for name in (CONFIG, WEIGHTS, WORDS, TOKENIZER, CALIBRATION):
        path = Path(folder) / name
        if path.is_file():
            with open(path, "rb") as file:
                whole.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]


def read_bias(folder: str | os.PathLike) -> np.ndarray:
    """The bias in a folder's calibration.json, float64 [3]; zeros if there is no such file.

    Raises:
      ValueError: the file does not give a finite number for each class.
    """
    path = Path(folder) / CALIBRATION
    if not path.is_file():
        return np.zeros(3)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["bias"]
        bias = np.array([float(found[name]) for name in CLASSES])
        if not np.all(np.isfinite(bias)):
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f'{path}: found no bias of each class, want {{"bias": {{"{CLASSES[0]}": number, '
            "...}} as experiments.train_nli writes it"
        ) from None
    return bias


@functools.lru_cache(maxsize=4)  # all scorers of one size share what is compiled
def _compiled(config, mesh):
    def local(params, ids_NS, types_NS, mask_NS):
        return jax.nn.log_softmax(bert.classify(params, ids_NS, types_NS, mask_NS, config))

    rows = PartitionSpec(PERSONAS)  # pairs are split over the devices as personas are
    sharded = jax.shard_map(
        local, mesh=mesh, in_specs=(PartitionSpec(), rows, rows, rows), out_specs=rows
    )
    return jax.jit(sharded)


def _cut(members):
    """Runs of a full batch each, then of small ones, so that few shapes are compiled."""
    large, small = _ROWS
    full = len(members) // large * large
    rest = len(members) - full
    if rest > large // 2:  # a large batch of padding is quicker than many small ones
        full, rest = len(members), 0
    starts = [(n, large) for n in range(0, full, large)]
    starts += [(n, small) for n in range(full, full + rest, small)]
    return [members[start : start + size] for start, size in starts]


def _read_cache(path, digest):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = read_journal(
        path, _parsed, expected="a row of scores", mend=True,
        remedy="mend the line or remove the file, which costs scoring once more",
    )  # fmt: skip
    return {pair: scores for found, pair, scores in rows if found == digest}


def _parsed(row):
    found, reply, statement, *scores = row
    scores = np.array(scores, np.float32)
    if scores.shape != (3,):
        raise ValueError
    return found, (reply, statement), scores
