"""Scores consistency: whether a reply entails or contradicts a persona statement.

    scorer = load_scorer("runs/nli", cache="runs/x/nli.jsonl")
    scorer.digest                              # identifies the files behind the scores
    scorer.labels([(reply, statement), ...])   # int8: +1, 0, -1, calibrated
    scorer.labels(pairs, calibrated=False)     # from the same forward pass

Columns of scores: entailment, neutral, contradiction.
"""

import collections
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
from mtml_jax.nli.calibration import CALIBRATION, labels_of, read_bias
from mtml_jax.nli.huggingface import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    WORDS,
    Classifier,
    encode_pairs,
    pad,
    padded_width,
    read_classifier,
)
from mtml_jax.runs.journal import read_journal
from mtml_jax.sharding import PERSONAS, local_mesh, replicate, split_personas

_ROWS = (64, 8)  # rows of a large and of a small batch

Pair = tuple[str, str]


def load_scorer(
    folder: str | os.PathLike, cache: str | os.PathLike | None = None, *, flag: str = "--nli"
) -> "Scorer":
    """Reads a BERT NLI classifier and its calibration, if it has one.

    Args:
      folder: contains config.json, model.safetensors and vocab.txt in Hugging Face's layout,
        and calibration.json if `build_scorer` wrote the folder.
      cache: JSON lines file of scores, created if it does not exist; only one process may
        use it at a time. Scores of other scorers in it are ignored.
      flag: the flag that named the folder, for error messages.

    Raises:
      FileNotFoundError: the folder or a file is missing.
      ValueError: the model is not a BERT, its weights do not fit, its labels are unknown,
        or the calibration or the cache is malformed.
      ImportError: the libraries that read such files are not installed.
    """
    model = read_classifier(folder, flag)
    return Scorer(model, read_bias(folder), digest(folder), cache)


class Scorer:
    """Scores pairs of (reply, statement); see `load_scorer`.

    A pair is scored only once. With a cache file this also holds across processes, even if
    they are killed.

    Attributes:
      digest: 16 hexadecimal digits that identify the files on which scores depend.
      bias: float64 [3], added to the log-probabilities; zeros without a calibration.
    """

    def __init__(
        self, model: Classifier, bias: np.ndarray, digest: str, cache: str | os.PathLike | None
    ):
        self.digest = digest
        self.bias = bias
        self._model = model
        self._mesh = local_mesh(min(_ROWS))
        self._params = replicate(model.params, self._mesh)
        self._forward = functools.partial(_log_probabilities, config=model.config, mesh=self._mesh)
        self._cache = cache
        self._known = {} if cache is None else _read_cache(Path(cache), digest)

    def labels(
        self,
        pairs: Sequence[Pair],
        progress: Callable[[int], object] | None = None,
        *,
        calibrated: bool = True,
    ) -> np.ndarray:
        """Returns the most likely classes, int8 [N]: +1 entailment, 0 neutral, -1 contradiction.

        Args:
          pairs: (reply, statement), as text of the corpus.
          progress: receives the number of pairs of each finished batch; they add up to N.
          calibrated: whether `bias` is added first.
        """
        scores = self.scores(pairs, progress)
        return labels_of(scores, self.bias if calibrated else None)

    def scores(
        self, pairs: Sequence[Pair], progress: Callable[[int], object] | None = None
    ) -> np.ndarray:
        """Returns uncalibrated log-probabilities, float32 [N, 3]; for arguments see `labels`."""
        pairs = [(reply, statement) for reply, statement in pairs]
        waiting = collections.Counter(pair for pair in pairs if pair not in self._known)
        report = progress or (lambda count: None)
        report(len(pairs) - waiting.total())
        for chunk, scores in self._forward_batches(list(waiting)):
            self._known.update(zip(chunk, scores, strict=True))
            self._keep(chunk, scores)
            report(sum(waiting[pair] for pair in chunk))
        return np.array([self._known[pair] for pair in pairs], np.float32).reshape(-1, 3)

    def _forward_batches(self, pairs):
        tokens = encode_pairs(self._model, pairs)
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
                # A float32 survives the conversion to a Python float, and back, exactly.
                entry = [self.digest, *pair, *(float(score) for score in row)]
                file.write(json.dumps(entry) + "\n")


def digest(folder: str | os.PathLike) -> str:
    """Returns 16 hexadecimal digits of the SHA-256 of all files on which scores depend."""
    whole = hashlib.sha256()
    for name in (CONFIG, WEIGHTS, WORDS, TOKENIZER, CALIBRATION):
        path = Path(folder) / name
        if path.is_file():
            with open(path, "rb") as file:
                whole.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def _log_probabilities(params, ids_NS, types_NS, mask_NS, *, config, mesh):
    """Scores rows that are split over the devices; scorers of one size share the program."""

    def local(params, *rows):
        return jax.nn.log_softmax(bert.classify(params, *rows, config))

    rows = PartitionSpec(PERSONAS)  # pairs are split over the devices as personas are
    specs = PartitionSpec(), rows, rows, rows
    sharded = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=rows)
    return sharded(params, ids_NS, types_NS, mask_NS)


def _cut(members):
    """Cuts a list into large and then small batches, so that few shapes are compiled."""
    large, small = _ROWS
    full = len(members) // large * large
    rest = len(members) - full
    if rest > large // 2:  # one padded large batch is faster than many small ones
        full, rest = len(members), 0
    starts = [(n, large) for n in range(0, full, large)]
    starts += [(n, small) for n in range(full, full + rest, small)]
    return [members[start : start + size] for start, size in starts]


def _read_cache(path, digest):
    path.parent.mkdir(parents=True, exist_ok=True)
    remedy = "mend the line or remove the file, which costs scoring once more"
    rows = read_journal(path, _parsed, expected="a row of scores", mend=True, remedy=remedy)
    return {pair: scores for found, pair, scores in rows if found == digest}


def _parsed(row):
    found, reply, statement, *scores = row
    scores = np.array(scores, np.float32)
    if scores.shape != (3,):
        raise ValueError
    return found, (reply, statement), scores
