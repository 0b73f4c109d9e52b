"""Define the parts of a soak: broken files, kills, full disks and damaged checkpoints."""

import contextlib
import functools
import hashlib
import json
import random
import resource
import shutil
import signal
import sys

from absl import flags
from hypothesis import HealthCheck, Phase, given, seed, settings

from experiments.soak.fuzz import READERS, check
from experiments.soak.runs import kill_and_resume, random_moment, run, size_of, state_of
from mtml_jax.eval.folds_file import FoldsFile
from mtml_jax.runs.checkpoint import ASIDE
from mtml_jax.runs.files import write_json
from mtml_jax.runs.integrity import find_damage

_STEPS = 24  # of the training that is killed, which saves after every second step


def fuzz(trials, output):
    """Feeds broken files to every reader."""
    folder = output / "fuzz"
    folder.mkdir(exist_ok=True)

    def fed(name, data):
        try:
            trials.add(True, check(name, data, folder), reader=name)
        except Exception as error:  # any other exception is the failure that is looked for
            sha = hashlib.sha256(data).hexdigest()[:16]
            (output / f"{name}-{sha}.bin").write_bytes(data)
            trials.add(False, "failed", reader=name, file=sha, error=repr(error)[:300])

    for number, name in enumerate(READERS):
        if share := len(trials.left()) // (len(READERS) - number):
            _feed(READERS[name][2], share, len(trials.done), functools.partial(fed, name))


def _feed(files, count, number, take):
    """Draws files and passes them to `take`; different numbers draw different files."""

    @seed(1_000_003 * flags.FLAGS.seed + number)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(files)
    def feed(data):
        take(data)

    feed()


def _command(output, workdir):
    """The training that is killed: it is so small that it spends its time on saving."""
    return [
        sys.executable, "-m", "experiments.train", "--preset=tiny", "--width=8", "--heads=2",
        "--feed_forward=16", "--tile_rows=2", "--meta_batch=2", "--validation_episodes=2",
        "--validate_every=2", f"--iterations={_STEPS}", "--patience=99", f"--workdir={workdir}",
        f"--compilation_cache={output / 'programs'}", "--cpu_devices=1",
    ]  # fmt: skip


def _reference(output):
    """Makes the run that is not disturbed, once; returns its folder."""
    workdir = output / "whole"
    if not (output / "whole.json").exists():
        shutil.rmtree(workdir, ignore_errors=True)
        code, text = run(_command(output, workdir))
        if code:
            raise RuntimeError(f"expected the undisturbed training to succeed, got: {text[-500:]}")
        write_json(output / "whole.json", {"bytes of the log": size_of(workdir / "log.jsonl")})
    return workdir


def training(trials, output):
    """Kills trainings at random moments; they must end with the bits of the undisturbed run."""
    whole = _reference(output)
    wanted = state_of(whole)
    for number in trials.left():
        rng = random.Random(f"{flags.FLAGS.seed} {number}")
        workdir = output / "killed"
        shutil.rmtree(workdir, ignore_errors=True)
        after, kills = [], 0
        for _ in range(rng.choice([1, 1, 2, 3])):  # some runs are killed several times
            kill, moment = random_moment(rng, workdir / "log.jsonl", whole / "log.jsonl")
            after.append(moment)
            kills += run(_command(output, workdir), kill)[0] == -signal.SIGKILL
        code, text = run(_command(output, workdir))
        same = code == 0 and state_of(workdir) == wanted
        quiet = "Traceback" not in text and not (workdir / "damaged").exists()
        trials.add(same and quiet, "same bits", text, kills=kills, after=after)


def _evaluate_command(output, workdir, result):
    return [
        sys.executable, "-m", "experiments.evaluate", f"--workdir={workdir}", "--shots=0,2",
        "--max_folds=12", "--folds_at_once=1", "--decoder=greedy", f"--output={result}",
        f"--compilation_cache={output / 'programs'}", "--cpu_devices=1", "--resamples=10",
    ]  # fmt: skip


def evaluation(trials, output):
    """Kills evaluations; no fold may be lost or repeated, and the report must be the same."""
    whole = _reference(output)
    report, name, folds = output / "report", "test.json", "test.folds.jsonl"
    if not (report / name).exists():
        shutil.rmtree(report, ignore_errors=True)
        if run(_evaluate_command(output, whole, report))[0]:
            raise RuntimeError("expected the undisturbed evaluation to succeed, got an error")
    wanted = json.loads((report / name).read_text())
    for number in trials.left():
        rng = random.Random(f"evaluation {flags.FLAGS.seed} {number}")
        result = output / "killed_report"
        shutil.rmtree(result, ignore_errors=True)
        command = _evaluate_command(output, whole, result)
        fields, code, text = kill_and_resume(rng, command, result / folds, report / folds)
        same = code == 0 and json.loads((result / name).read_text()) == wanted
        saved = json.loads((result / "test.settings.json").read_text())
        with FoldsFile(result / folds, saved) as done:
            same = same and (result / folds).read_text().count("\n") == len(done.rows)
        trials.add(same, "same report", text, **fields)


def preparation(trials, output):
    """Kills the preparation of dialogues; the next start must read all and leave no remains."""
    texts = output / "texts"
    texts.mkdir(exist_ok=True)
    for split, count in (("train", 3000), ("valid", 30)):
        with open(texts / f"{split}_self_original.txt", "w", encoding="utf-8") as file:
            for n in range(count):
                file.write(f"1 your persona: i know {split} number {n}\n2 your persona: i say {n}\n")
                file.write("".join(f"{t + 3} what is {t} ?\tit is {n} .\n" for t in range(8)))
    program = (
        "import sys\n"
        "from mtml_jax.data.personachat import load_personachat\n"
        "print(*[len(load_personachat(s, sys.argv[1])[0]) for s in ('train', 'valid')])\n"
    )
    command = [sys.executable, "-c", program, str(texts)]
    home, undisturbed = output / "home", output / "undisturbed"
    run(command, environment={"TFDS_DATA_DIR": str(undisturbed)})
    for number in trials.left():
        rng = random.Random(f"preparation {flags.FLAGS.seed} {number}")
        shutil.rmtree(home, ignore_errors=True)
        own = {"environment": {"TFDS_DATA_DIR": str(home)}}
        fields, code, text = kill_and_resume(rng, command, home, undisturbed, **own)
        whole = code == 0 and text.split()[-2:] == ["3000", "30"]
        left, right = ({p.relative_to(at) for p in at.rglob("*")} for at in (home, undisturbed))
        whole = whole and left == right
        trials.add(whole, "all read", text, **fields)


def study(trials, output):
    """Kills studies; the next start must end with the same cells."""
    whole, killed = output / "study", output / "killed_study"

    def command(folder):
        return [
            sys.executable, "-m", "experiments.study", "--preset=tiny", "--iterations=6",
            "--inner_lr=0.1", "--rows=std,paml,paml-latest", "--seeds=1", "--shots=1",
            "--folds_per_persona=1", "--cpu_devices=1", f"--output={folder}",
            f"--compilation_cache={output / 'programs'}",
        ]  # fmt: skip

    code, text = run(command(whole))  # does nothing if it was made before
    if code:
        raise RuntimeError(f"expected the undisturbed study to succeed, got: {text[-500:]}")
    for number in trials.left():
        rng = random.Random(f"study {flags.FLAGS.seed} {number}")
        shutil.rmtree(killed, ignore_errors=True)
        fields, code, text = kill_and_resume(rng, command(killed), killed, whole)
        same = code == 0 and _cells(killed) == _cells(whole)
        trials.add(same, "same cells", text, **fields)


def _cells(folder):
    """Reads the cells of a study without their times."""
    cells = {path.name: json.loads(path.read_text()) for path in (folder / "cells").iterdir()}
    for cell in cells.values():
        del cell["test_seconds"], cell["training"]["seconds"], cell["training"]["seconds_a_step"]
    return cells


def disk(trials, output):
    """Limits the size of files, as a full disk does; the error must be one sentence."""
    whole = _reference(output)
    wanted = state_of(whole)
    for number in trials.left():
        workdir = output / "full"
        shutil.rmtree(workdir, ignore_errors=True)
        most = (2_000, 6_000, 20_000)[number % 3]  # bytes: the words twice, an array

        def limit(most=most):
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        # Compiled programs are the first files that fail, which does no harm.
        code, text = run(_command(output, workdir), preexec_fn=limit)
        *_, last = text.strip().split("\n")
        reported = code == 1 and last.startswith(f"error: {workdir}") and "Traceback" not in text
        code, text = run(_command(output, workdir))
        same = code == 0 and state_of(workdir) == wanted
        trials.add(reported and same, "one sentence, same bits", said=last, most=most)


def damage(trials, output):
    """Cuts, changes or removes a file of the latest checkpoint; the run must end the same."""
    whole = _reference(output)
    wanted = state_of(whole)
    for number in trials.left():
        rng = random.Random(f"damage {flags.FLAGS.seed} {number}")
        workdir = output / "damaged"
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(whole, workdir)
        folder = workdir / "checkpoints" / str(_STEPS)
        files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size]
        path = rng.choice([p for p in files if p.parent != folder or "manifest" in p.name])
        data = bytearray(path.read_bytes())
        how = ("flip", "cut", "remove")[number % 3]
        if how == "flip":
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data[: rng.randrange(len(data))] if how == "cut" else data)
        if how == "remove":
            path.unlink()
        found = find_damage(folder, ASIDE)
        code, text = run(_command(output, workdir))
        named = f"damaged checkpoint of step {_STEPS}" in text
        same = False
        with contextlib.suppress(OSError, ValueError):
            same = state_of(workdir) == wanted
        survived = bool(found) and code == 0 and named and same
        file = str(path.relative_to(folder))
        trials.add(survived, "named, same bits", text, how=how, file=file)


_ALL = (fuzz, training, evaluation, preparation, study, disk, damage)
PARTS = {part.__name__: part for part in _ALL}
