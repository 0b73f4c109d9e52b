"""Tests a model on personas it never saw: `python -m experiments.evaluate --workdir=W`."""

import collections
import contextlib
import functools
import hashlib
import json
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from tqdm import tqdm

from experiments import flags as settings
from experiments.folds_file import FoldsFile, key
from experiments.score_table import score_table
from mtml_jax import decoding
from mtml_jax.checkpoint import load_run, restore_params
from mtml_jax.config import TrainConfig, restored_config
from mtml_jax.data.demo import demo_facts, judge_reply
from mtml_jax.data.episodes import EncodedPersona, Encoding, encode_personas
from mtml_jax.data.folds import FoldPlan, choose_folds, measure_folds, pack_folds
from mtml_jax.data.personas import group_personas, require_conversations
from mtml_jax.data.prepare import load_split
from mtml_jax.data.vocab import START, Vocabulary
from mtml_jax.evaluation import score_stages
from mtml_jax.metrics import bleu_signature
from mtml_jax.nli import load_scorer
from mtml_jax.records import Persona
from mtml_jax.runlog import WorkdirLock, versions, write_json, write_text
from mtml_jax.scores import Answer, HeldOut, count, differences, summarise
from mtml_jax.sharding import (
    fetch,
    from_first,
    own_share,
    persona_mesh,
    replicate,
    split_personas,
)

EPOCHS = (1, 3, 5, 7, 10)  # after which an adapted model is scored; 0 is the unadapted one
DECODERS = {
    "beam": decoding.beam_search,
    "greedy": decoding.greedy,
    "nucleus": decoding.sample,
}


class Run(NamedTuple):
    """A trained model and the personas it is tested on.

    Attributes:
      config: the run's settings.
      vocabulary: the run's words.
      params: of the checkpoint.
      step: that the checkpoint was saved at.
      personas: of the split, as text.
      encoded: the same as ids.
      known_statements: all statements of the train split.
      facts: speaker -> facts, of the demo corpus; else empty.
      notes: sentences on the data.
    """

    config: TrainConfig
    vocabulary: Vocabulary
    params: dict
    step: int
    personas: list[Persona]
    encoded: list[EncodedPersona]
    known_statements: set[str]
    facts: dict[str, dict[str, str]]
    notes: list[str]


def define_flags() -> None:
    settings.define_common_flags()
    settings.define_data_flags()
    settings.define_process_flags()
    flags.FLAGS.set_default("data", None)  # that of the run
    flags.DEFINE_list("shots", ["0", "5", "10"], "numbers k of dialogues to adapt to")
    flags.DEFINE_enum("split", "test", ["train", "valid", "test"], "whose personas are tested")
    flags.DEFINE_integer(
        "max_folds", None, "test so many held-out dialogues, spread over the personas (default: "
        "all)", lower_bound=1,
    )  # fmt: skip
    flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "of the run")
    flags.DEFINE_string("output", None, "folder of the results (default: WORKDIR/eval)")
    flags.DEFINE_string(
        "nli", None, "folder of an NLI scorer, from experiments.train_nli; without it no C-score"
    )
    flags.DEFINE_enum("decoder", "beam", list(DECODERS), "how replies are found")
    flags.DEFINE_integer("beams", decoding.BEAMS, "hypotheses of beam search", lower_bound=1)
    flags.DEFINE_float("top_p", 0.9, "probability of the nucleus", 1e-6, 1.0)
    flags.DEFINE_float("inner_lr", None, "SGD step of the adaptation (default: the run's)", 0.0)
    flags.DEFINE_boolean(
        "persona_at_test", False, "std_p only: put the statements in front of contexts at test"
    )
    flags.DEFINE_integer("seed", 0, "of folds, shuffles and intervals", lower_bound=0)
    flags.DEFINE_integer("resamples", 1000, "of the bootstrap intervals", lower_bound=1)
    flags.DEFINE_integer(
        "folds_at_once", None, "folds a device takes between two saves (default: 2 on a CPU, "
        "else 16); more is more memory on an accelerator", lower_bound=1,
    )  # fmt: skip


def main(argv) -> None:
    settings.start(argv, "--workdir=runs/x")
    settings.join_processes()
    interrupted = "interrupted; the same command goes on from the last finished fold"
    with settings.all_or_none(), settings.one_sentence(interrupted):
        evaluate(flags.FLAGS)


def evaluate(given) -> dict | None:
    """Runs the whole command; `given` has the flags as attributes.

    Returns:
      The report; None in processes other than the first, which only share its folds.
    """
    if not given.workdir:
        raise ValueError("got no --workdir, want the folder of a training run")
    shots = _shots(given.shots)
    output = pathlib.Path(given.output or pathlib.Path(given.workdir) / "eval")
    with contextlib.ExitStack() as stack:
        run = load(given)
        plans = {
            k: choose_folds(run.encoded, k, given.seed, given.max_folds)
            for k in sorted({0, *shots})
        }
        if jax.process_index():
            return run_folds(given, run, plans, None)
        stack.enter_context(WorkdirLock(output))
        scorer = load_scorer(given.nli, output / "nli.jsonl") if given.nli else None
        _describe(given, run, plans)
        done = stack.enter_context(
            FoldsFile(output / f"{given.split}.folds.jsonl", _settings(given, run))
        )
        run_folds(given, run, plans, done)
        report = score(given, run, plans, done.rows, scorer)
        write_json(output / f"{given.split}.json", report)
        _write_generations(output / f"{given.split}.generations.jsonl", run, plans, done.rows)
    print(score_table(report))
    if not given.nli:
        print(
            "no C-score: give a scorer with --nli=DIR; python -m experiments.train_nli makes one"
        )
    print(f"\nresults in {output}: {given.split}.json, {given.split}.generations.jsonl")
    return report


def load(given) -> Run:
    """Reads the run and the personas of the split.

    Raises:
      FileNotFoundError: there is no run, checkpoint or split.
      ValueError: they do not fit together, or the data cannot be read.
    """
    saved, text = load_run(given.workdir)
    config = restored_config(saved)
    vocabulary = Vocabulary.from_text(text)
    restored = restore_params(given.workdir, given.checkpoint)
    words = restored.params["embedding"].shape[0]
    if words != len(vocabulary):
        raise ValueError(
            f"{given.workdir}: found a checkpoint of {words:,} words and a vocabulary of "
            f"{len(vocabulary):,}, want the vocabulary.txt that it was trained with"
        )
    if given.persona_at_test and config.strategy != "std_p":
        raise ValueError(
            f"got --persona_at_test for a run of {config.strategy}, want a run of std_p: the "
            "others never saw statements in a context"
        )
    source = given.data or saved["data"]
    # The run's own file is split as it was for training; another one by the flags.
    how = {} if given.data else saved
    read = functools.partial(
        load_split,
        source,
        given.data_dir,
        split_seed=how.get("split_seed", given.split_seed),
        skip_bad=given.skip_bad or how.get("skip_bad", False),
    )
    dialogues, notes = read(given.split)
    train, _ = read("train")
    personas, alone = require_conversations(group_personas(dialogues))
    encoding = Encoding(vocabulary, config.shape, given.persona_at_test)
    encoded, counts = encode_personas(personas, encoding)
    notes = notes + [
        f"{given.split}: {len(personas):,} personas, {counts['examples']:,} turns; left out "
        f"{len(alone):,} personas with a single conversation; cut to their slots "
        f"{counts['contexts']:,} contexts, {counts['responses']:,} responses"
    ]
    return Run(
        config,
        vocabulary,
        restored.params,
        restored.step,
        personas,
        encoded,
        {statement for dialogue in train for statement in dialogue.statements},
        demo_facts(given.split) if source == "demo" else {},
        notes,
    )


def run_folds(
    given, run: Run, plans: dict[int, list[FoldPlan]], done: FoldsFile | None
) -> None:
    """Adapts, scores and decodes whatever fold is not done yet.

    All processes share every group of folds. The first one keeps the results in `done`,
    which the others have not, and goes on alone from here.
    """
    work = [("unadapted", 0)]
    work += [(system, k) for k in plans if k for system in ("own", "other")]
    rows = done.rows if done else {}
    waiting = {}
    for system, k in work:
        missing = [(system, k, p.persona, p.dialogue) not in rows for p in plans[k]]
        waiting[system, k] = [plans[k][i] for i in np.flatnonzero(from_first(np.array(missing)))]
    shape, longest = run.config.shape, max(plans)
    total = sum(len(plans[k]) for _, k in work)
    left = sum(map(len, waiting.values()))
    with tqdm(total=total, initial=total - left, unit="fold", disable=None) as bar:
        for several in (False, True):  # one program for all that adapt, whatever their k
            todo = [pair for pair in work if bool(pair[1]) == several and waiting[pair]]
            if not todo:
                continue
            bar.set_description("measuring")
            epochs = max(EPOCHS) if several else 1
            sizes = measure_folds(
                plans[longest if several else 0], shape, epochs=epochs, seed=given.seed
            )
            mesh, at_once, stages = _compiled(given, run, EPOCHS if several else (0,))
            for system, k in todo:
                bar.set_description(f"{system}, {k}-shot" if k else system)
                for some in _cut(waiting[system, k], at_once):
                    packed = pack_folds(
                        [some[i % len(some)] for i in range(at_once)][own_share(at_once)],
                        shape,
                        sizes,
                        control=system == "other",
                        epochs=epochs,
                        seed=given.seed,
                    )
                    found = stages(split_personas(packed, mesh))
                    if done:
                        done.add(_rows(run, system, k, some, found))
                    bar.update(len(some))
    if jax.process_count() > 1:
        jax.distributed.shutdown()


def _cut(plans, size):
    return [plans[begin : begin + size] for begin in range(0, len(plans), size)]


def _compiled(given, run, stages):
    """(mesh, folds at once, function of folds); the function returns whole numpy arrays."""
    devices = jax.devices()
    on_cpu = devices[0].platform == "cpu"
    each = given.folds_at_once or (2 if on_cpu else 16)
    mesh = persona_mesh(each * len(devices))
    decode = DECODERS[given.decoder]
    extra = {"beams": given.beams} if given.decoder == "beam" else {}
    if given.decoder == "nucleus":
        extra = {"top_p": given.top_p, "key": jax.random.key(given.seed)}
    program = jax.jit(
        functools.partial(
            score_stages,
            stages=stages,
            config=run.config.loss(),
            mesh=mesh,
            chunk=1 if on_cpu else each,
            decode=functools.partial(decode, start=START, config=run.config.model, **extra),
        )
    )
    params = replicate(run.params, mesh)
    inner_lr = replicate(jnp.float32(_inner_lr(given, run)), mesh)

    def score_folds(folds):
        return fetch(program(params, folds, inner_lr))

    return mesh, each * mesh.size, score_folds


def _rows(run, system, shots, plans, found):
    """One row a fold: what `FoldsFile` keeps."""
    epochs = EPOCHS if shots else (0,)
    rows = []
    for n, plan in enumerate(plans):
        turns = len(plan.held_out.examples)
        texts = [
            [run.vocabulary.decode(ids) for ids in found.replies.ids[n, stage, :turns]]
            for stage in range(len(epochs))
        ]
        rows.append(
            {
                "system": system,
                "shots": shots,
                "persona": plan.persona,
                "dialogue": plan.dialogue,
                "effective_shots": len(plan.others if system == "other" else plan.own),
                "epochs": list(epochs),
                "nll": [float(x) for x in found.response.nll[n]],
                "tokens": int(found.response.tokens[n, 0]),
                "replies": texts,
                "log_prob": np.round(found.replies.log_prob[n, :, :turns], 4).tolist(),
            }
        )
    return rows


def score(given, run: Run, plans, rows, scorer) -> dict:
    """The report: every row with every score, and what it depends on."""
    tests = {k: [_held_out(run, plan) for plan in plans[k]] for k in plans}
    systems = {("human", 0, 0): [Answer(test.gold) for test in tests[0]]}
    effective = collections.Counter()
    for system, k in [("unadapted", 0)] + [(s, k) for k in plans if k for s in ("own", "other")]:
        found = [rows[system, k, p.persona, p.dialogue] for p in plans[k]]
        effective[k] = float(np.mean([row["effective_shots"] for row in found]))
        for stage, epoch in enumerate(found[0]["epochs"]):
            systems[system, k, epoch] = [
                Answer(tuple(r["replies"][stage]), r["nll"][stage], r["tokens"]) for r in found
            ]
    labels = {}
    if scorer:
        _label_all(scorer, tests, systems)
        labels["c"] = scorer.labels
        labels["c_uncalibrated"] = functools.partial(scorer.labels, calibrated=False)
    statistics, table = {}, []
    show = tqdm(systems.items(), desc="scoring", unit="row", disable=None, leave=False)
    summary = functools.partial(summarise, seed=given.seed, resamples=given.resamples)
    for (system, k, epoch), answers in show:
        statistics[system, k, epoch] = counted = count(
            tests[k], answers, known_statements=run.known_statements, labels=labels
        )
        table.append({"system": system, "shots": k, "epoch": epoch, "scores": summary(counted)})
        if system == "other":
            table.append(
                {
                    "system": "own minus other",
                    "shots": k,
                    "epoch": epoch,
                    "scores": differences(
                        statistics["own", k, epoch],
                        counted,
                        seed=given.seed,
                        resamples=given.resamples,
                    ),
                }
            )
    return {
        "rows": table,
        "settings": _settings(given, run),
        "folds": len(plans[0]),
        "personas": len({plan.persona for plan in plans[0]}),
        "turns": sum(len(test.gold) for test in tests[0]),
        "effective_shots": {str(k): effective[k] for k in plans},
        "bleu_signature": bleu_signature(),
        "nli": scorer.digest if scorer else None,
        "resamples": given.resamples,
        "device": jax.devices()[0].device_kind,
        "versions": versions(),
    }


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


def _write_generations(path, run, plans, rows):
    """A line a turn: context, human reply, and the reply of every system, shot and epoch."""
    by_fold = collections.defaultdict(list)
    for row in rows.values():
        by_fold[row["persona"], row["dialogue"]].append(row)
    lines = []
    for plan in plans[0]:
        persona = run.personas[plan.persona]
        dialogue = persona.dialogues[plan.dialogue]
        for turn, (example, said) in enumerate(zip(plan.held_out.examples, dialogue.turns)):
            replies = {
                f"{row['system']}, {row['shots']}-shot, epoch {epoch}": texts[turn]
                for row in sorted(by_fold[plan.persona, plan.dialogue], key=key)
                for epoch, texts in zip(row["epochs"], row["replies"])
            }
            line = {
                "persona": persona.name,
                "statements": list(dialogue.statements),
                "conversation": dialogue.conversation,
                "turn": turn + 1,
                "utterances": _utterances(dialogue, turn),
                "context": run.vocabulary.decode(example.context),
                "gold": said.response,
                "replies": replies,
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def _utterances(dialogue, turn):
    """What was said before a reply, as [who, text] in order: whole, whatever the model reads."""
    said = []
    for earlier in dialogue.turns[: turn + 1]:
        said += [["other", earlier.context], ["self", earlier.response]]
    return [[who, text] for who, text in said[:-1] if text]


def _shots(given: list[str]) -> list[int]:
    try:
        shots = sorted({int(k) for k in given})
    except ValueError:
        shots = [-1]
    if not shots or shots[0] < 0:
        raise ValueError(f"got --shots={','.join(given)}, want whole numbers such as 0,5,10")
    return shots


def _inner_lr(given, run):
    return run.config.inner_lr if given.inner_lr is None else given.inner_lr


def _settings(given, run: Run) -> dict:
    """All that a fold's result depends on beside the data."""
    return {
        "strategy": run.config.strategy,
        "checkpoint": given.checkpoint,
        "step": run.step,
        "split": given.split,
        "inner_lr": _inner_lr(given, run),
        "reduction": run.config.reduction,
        "decoder": given.decoder,
        "beams": given.beams if given.decoder == "beam" else None,
        "top_p": given.top_p if given.decoder == "nucleus" else None,
        "max_tokens": decoding.MAX_TOKENS,
        "persona_at_test": given.persona_at_test,
        "seed": given.seed,
        "data": _fingerprint(run.personas),
    }


def _fingerprint(personas: list[Persona]) -> str:
    """Digits that stand for who is tested on what."""
    digest = hashlib.sha256()
    for persona in personas:
        for dialogue in persona.dialogues:
            said = [text for turn in dialogue.turns for text in (turn.context, turn.response)]
            whole = [persona.name, dialogue.conversation, *dialogue.statements, *said]
            digest.update(json.dumps(whole).encode())
    return digest.hexdigest()[:16]


def _describe(given, run, plans):
    for note in run.notes:
        print(note)
    folds = plans[0]
    print(
        f"{run.config.strategy}, {given.checkpoint} checkpoint (step {run.step:,}); "
        f"{len(folds):,} held-out dialogues of {len({p.persona for p in folds}):,} personas; "
        f"{', '.join(f'{k}-shot' for k in plans)}; SGD at {_inner_lr(given, run)}, scored "
        f"after {', '.join(map(str, EPOCHS))} epochs",
        flush=True,
    )
    for k, some in plans.items():
        short = [len(plan.own) for plan in some if len(plan.own) < k]
        if short:
            print(f"{len(short):,} folds adapt to fewer than {k} dialogues, {min(short)} at least")


if __name__ == "__main__":
    define_flags()
    app.run(main)
