"""Test a model as in section 3.4: adapt to each fold, score and decode it, count its statistics."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from mtml_jax.config_eval import EvalConfig
from mtml_jax.data.demo_judge import asked_slot, judge_answer, judge_reply
from mtml_jax.data.encode import Encoding
from mtml_jax.data.layout import reply_rows
from mtml_jax.data.strands import RowEncoding
from mtml_jax.eval.adaptation import score_stages
from mtml_jax.eval.folds import FoldPlan, measure_folds, pack_folds, prompted
from mtml_jax.eval.folds_file import FoldsFile
from mtml_jax.eval.run import Run
from mtml_jax.eval.scores import Answer, HeldOut, Statistics, count
from mtml_jax.model import beam, decoding
from mtml_jax.nli.scorer import Scorer
from mtml_jax.progress import ProgressBar
from mtml_jax.sharding import fetch, from_first, own_share, persona_mesh, replicate, split_personas

EPOCHS = Encoding.epochs  # after which an adapted model is scored; 0 is the unadapted model
_UNADAPTED = (0,)
DECODERS = {"beam": beam.beam_search, "greedy": decoding.greedy, "nucleus": decoding.sample}


def systems_of(plans: dict[int, list[FoldPlan]], run: Run) -> list[tuple[str, int]]:
    """The systems that every fold is tested with: (system, shots).

    A pretrained decoder is also tested as a user would try first: with the k dialogues in its
    context ("prompt"), unadapted.
    """
    kinds = ("own", "other") if run.base is None else ("prompt", "own", "other")
    return [("unadapted", 0), *((s, k) for k in plans if k for s in kinds)]


def run_folds(
    config: EvalConfig, run: Run, plans: dict[int, list[FoldPlan]], done: FoldsFile | None,
    bar: tqdm | None = None
) -> None:
    """Adapts to, scores and decodes every fold that is not done yet.

    All processes share every group of folds. The first one keeps the results, and continues
    alone when this function returns.

    `plans` are the folds of each k, and `done` is the file of finished folds, None in processes
    other than the first. A bar of several evaluations is advanced by each fold.
    """
    systems = systems_of(plans, run)
    rows = done.rows if done else {}
    waiting = {}
    for system, k in systems:
        missing = [(system, k, p.persona, p.dialogue) not in rows for p in plans[k]]
        waiting[system, k] = [plans[k][i] for i in np.flatnonzero(from_first(np.array(missing)))]
    total = sum(len(plans[k]) for _, k in systems)
    left = sum(map(len, waiting.values()))
    with contextlib.ExitStack() as stack:
        bar = bar or stack.enter_context(
            ProgressBar(
                total=total, initial=total - left, unit="fold", disable=jax.process_index() > 0
            )
        )
        for kinds in (("unadapted",), ("prompt",), ("own", "other")):
            # One program for all that adapt, whatever their k.
            pending = [pair for pair in systems if pair[0] in kinds and waiting[pair]]
            if not pending:
                continue
            bar.set_description("measuring")
            stages = stages_of(run, kinds[0])
            epochs = max(1, *stages)
            most = max(plans) if pending[0][1] else 0
            sizes = measure_folds(
                _as_tested(plans[most], kinds[0]), run.encoding, epochs=epochs, seed=config.seed
            )
            at_once, score_folds = _compiled(config, run, stages)
            for system, k in pending:
                bar.set_description(f"{system}, {k}-shot" if k else system)
                folds = _as_tested(waiting[system, k], system)
                for begin in range(0, len(folds), at_once):
                    group = folds[begin : begin + at_once]
                    packed = pack_folds(
                        [group[i % len(group)] for i in range(at_once)][own_share(at_once)],
                        run.encoding, sizes, control=system == "other", epochs=epochs,
                        seed=config.seed
                    )
                    results = score_folds(packed)
                    if done:
                        done.add(_rows(run, system, k, group, results))
                    bar.update(len(group))
    if jax.process_count() > 1:
        jax.distributed.shutdown()


def stages_of(run: Run, system: str) -> tuple[int, ...]:
    """The numbers of epochs after which a system is scored."""
    return run.encoding.epochs if system in ("own", "other") else _UNADAPTED


def _as_tested(plans, system):
    return [prompted(plan) for plan in plans] if system == "prompt" else plans


def _compiled(config, run, stages):
    """(folds at once, function of packed folds to whole numpy arrays)."""
    devices = jax.devices()
    on_cpu = devices[0].platform == "cpu"
    each = config.folds_at_once or (16 if not on_cpu else 2 if run.base is None else 1)
    mesh = persona_mesh(each * len(devices))
    params, base = replicate((run.params, run.base), mesh)
    inner_lr = replicate(jnp.float32(inner_lr_of(config, run)), mesh)
    options: dict = {"beams": config.beams} if config.decoder == "beam" else {}
    if config.decoder == "nucleus":
        options = {"top_p": config.top_p, "seed": config.seed}
    program = functools.partial(
        _score_folds, stages=stages, config=run.config.loss(), mesh=mesh,
        chunk=1 if on_cpu else each, decoder=config.decoder, options=tuple(options.items()),
        decoding=decoding_of(run.encoding)
    )
    return each * mesh.size, lambda folds: fetch(
        program(params, split_personas(folds, mesh), inner_lr, base)
    )


def decoding_of(encoding: Encoding | RowEncoding, task: str = "response") -> tuple:
    """The settings with which targets of a task are decoded, but those of the model, as pairs."""
    settings = {"start": encoding.start(task), "symbols": encoding.symbols}
    most = encoding.max_persona if task == "persona" else encoding.max_reply
    return tuple({**settings, "max_tokens": most}.items())


@functools.partial(
    jax.jit, static_argnames=("stages", "config", "mesh", "chunk", "decoder", "options", "decoding")
)
def _score_folds(
    params, folds, inner_lr, base, *, stages, config, mesh, chunk, decoder, options, decoding
):
    how = {**dict(options), **dict(decoding)}
    if decoder == "nucleus":
        how["key"] = jax.random.key(how.pop("seed"))
    decode = functools.partial(DECODERS[decoder], config=config.model, **how)
    return score_stages(
        params, folds, inner_lr, base, stages=stages, config=config, mesh=mesh, chunk=chunk, decode=decode
    )


def _rows(run, system, shots, plans, results):
    """One row for each fold, as `FoldsFile` keeps it."""
    epochs = stages_of(run, system)
    rows = []
    for n, plan in enumerate(plans):
        replies = reply_rows(plan.held_out.examples, run.encoding)
        texts = [
            [run.encoding.words(ids) for ids in results.replies.ids[n, stage, replies]]
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
                "nll": [float(x) for x in results.response.nll[n]],
                "tokens": int(results.response.tokens[n, 0]),
                "replies": texts,
                "log_prob": np.round(results.replies.log_prob[n, :, replies].T, 4).tolist(),
            }
        )
    return rows


def inner_lr_of(config: EvalConfig, run: Run) -> float:
    """The learning rate of the adaptation."""
    return run.config.inner_lr if config.inner_lr is None else config.inner_lr


def statistics_of(
    run: Run, plans: dict[int, list[FoldPlan]], rows: dict, scorer: Scorer | None
) -> dict[tuple[str, int, int], Statistics]:
    """Counts the statistics of the replies and likelihoods of every system, shot and epoch.

    `rows` are those of `FoldsFile`, one for every fold of every system of `plans`, which holds
    the folds of each k. Without a scorer, there are no C-scores.

    Returns:
      (system, shots, epoch) -> Statistics; ("human", 0, 0) first.
    """
    tests = {k: [_held_out(run, plan) for plan in plans[k]] for k in plans}
    systems = {("human", 0, 0): [Answer(test.gold) for test in tests[0]]}
    for system, k in systems_of(plans, run):
        own_rows = [rows[system, k, p.persona, p.dialogue] for p in plans[k]]
        for stage, epoch in enumerate(own_rows[0]["epochs"]):
            systems[system, k, epoch] = [
                Answer(tuple(r["replies"][stage]), r["nll"][stage], r["tokens"]) for r in own_rows
            ]
    labels = {}
    if scorer:
        _label_all(scorer, tests, systems)
        labels["c"] = scorer.labels
        labels["c_uncalibrated"] = functools.partial(scorer.labels, calibrated=False)
    bar = tqdm(systems.items(), desc="scoring", unit="row", disable=None, leave=False)
    return {
        (system, k, epoch): count(
            tests[k], answers, known_statements=run.known_statements, labels=labels
        )
        for (system, k, epoch), answers in bar
    }


def effective_shots(plans: dict[int, list[FoldPlan]]) -> dict[str, float]:
    """Mean number of dialogues that a fold adapts to, by k."""
    return {str(k): float(np.mean([len(plan.own) for plan in plans[k]])) for k in plans}


def _label_all(scorer, tests, systems):
    """Scores all pairs at once, with a progress bar; later calls find them in the cache."""
    pairs = {
        (reply, statement)
        for (_, k, _), answers in systems.items()
        for test, answer in zip(tests[k], answers)
        for reply in answer.replies
        for statement in (*test.statements, *test.shuffled)
    }
    with ProgressBar(total=len(pairs), desc="NLI", unit="pair") as bar:
        scorer.scores(sorted(pairs), bar.update)


def _held_out(run: Run, plan: FoldPlan) -> HeldOut:
    persona = run.personas[plan.persona]
    dialogue = persona.dialogues[plan.dialogue]
    others = run.personas[plan.other].dialogues
    facts = run.facts.get(persona.name)

    def verdict(reply):
        verdicts = judge_reply(reply, facts).values()
        return next((v for v in ("contradicted", "stated") if v in verdicts), "ignored")

    def answer_to(utterance):
        slot = asked_slot(utterance, facts)
        return slot and functools.partial(judge_answer, slot=slot, facts=facts)

    return HeldOut(
        plan.persona, tuple(turn.response for turn in dialogue.turns), dialogue.statements,
        others[plan.dialogue % len(others)].statements, verdict if facts else None,
        tuple(answer_to(turn.context) for turn in dialogue.turns) if facts else ()
    )
