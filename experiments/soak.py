"""Kills, full disks and dirty files, many times over: `python -m experiments.soak`.

Each part writes what it has done to OUTPUT/PART.jsonl as it goes, so that a soak that was
stopped goes on, and `soak.json` sums them up.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from absl import app, flags
from absl import logging as absl_logging
from hypothesis import HealthCheck, Phase, given, seed, settings
from tqdm import tqdm

from experiments.folds_file import FoldsFile
from mtml_jax.checkpoint import ASIDE, restore_params
from mtml_jax.delta import digest
from mtml_jax.manifest import find_damage
from mtml_jax.runlog import versions, write_json

PARTS = ("fuzz", "training", "evaluation", "preparation", "study", "disk", "damage")
_STEPS = 24  # of the training that is killed; saved after every second one
_PROGRAM_SECONDS = 900  # a start that takes longer hangs

flags.DEFINE_list("parts", list(PARTS), "what to do, of " + ", ".join(PARTS))
flags.DEFINE_string("output", "runs/soak", "folder of results and of the runs that are killed")
flags.DEFINE_integer("files", 20_000, "fuzzed files", lower_bound=1)
flags.DEFINE_integer(
    "kills", 50, "runs to kill: trainings, some of them several times, evaluations and "
    "preparations; and a tenth as many studies", 1,
)  # fmt: skip
flags.DEFINE_integer("seed", 0, "of the moments of the kills and of the files")


def main(argv) -> None:
    if len(argv) > 1 or (wrong := set(flags.FLAGS.parts) - set(PARTS)):
        sys.exit(f"error: got {argv[1:] or sorted(wrong)}, want --parts of {','.join(PARTS)}")
    given_flags = flags.FLAGS
    absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax tells of each of its steps
    logging.getLogger().setLevel(logging.CRITICAL)
    output = pathlib.Path(given_flags.output).resolve()
    output.mkdir(parents=True, exist_ok=True)
    third = given_flags.kills // 5
    shares = {"evaluation": third, "preparation": third, "disk": 3, "damage": 12}
    shares["study"] = max(1, given_flags.kills // 10)
    shares |= {"training": given_flags.kills - 2 * third, "fuzz": given_flags.files}
    for part in given_flags.parts:
        with _Trials(output / f"{part}.jsonl", part, shares[part]) as trials:
            globals()[f"_{part}"](trials, output)
    table = {part: _counted(output / f"{part}.jsonl") for part in PARTS}
    write_json(output / "soak.json", {"parts": table, "versions": versions()})
    print("| part | tried | survived | kills | kept |\n|---|---|---|---|---|")
    for part, row in table.items():
        if row["tried"]:
            kept = ", ".join(f"{n:,} {end}" for end, n in sorted(row["ends"].items()))
            print(f"| {part} | {row['tried']:,} | {row['survived']:,} | {row['kills']} | {kept} |")
    if any(row["tried"] > row["survived"] for row in table.values()):
        sys.exit(f"error: found trials that were not survived, see {output}")


class _Trials:
    """Trials of a part: those done before are known, each new one is written at once."""

    def __init__(self, path, part, wanted):
        self.done = _rows(path)
        self._file = open(path, "a", encoding="utf-8")
        self._bar = tqdm(total=wanted, initial=min(len(self.done), wanted), desc=part, unit="trial")
        self._wanted = wanted

    def left(self):
        """Numbers of the trials to do."""
        return range(len(self.done), self._wanted)

    def add(self, survived: bool, end: str, **more):
        row = {"survived": survived, "end": end, **more}
        self.done.append(row)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._bar.update()
        if not survived:
            self._bar.write(f"not survived: {row}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self._bar.close()


def _rows(path):
    if not path.is_file():
        return []
    *lines, _torn = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines]


def _counted(path):
    rows = _rows(path)
    ends = [row["end"] for row in rows]
    survived = sum(row["survived"] for row in rows)
    kills = sum(row.get("kills", 0) for row in rows)
    counted = {end: ends.count(end) for end in set(ends)}
    return {"tried": len(rows), "survived": survived, "kills": kills, "ends": counted}


def _fuzz(trials, output):
    """Dirty files for every reader."""
    from experiments.fuzz import READERS, check  # it imports all of them

    folder = output / "fuzz"
    folder.mkdir(exist_ok=True)

    def fed(name, data):
        try:
            trials.add(True, check(name, data, folder), reader=name)
        except Exception as error:  # whatever came through is what is looked for
            sha = hashlib.sha256(data).hexdigest()[:16]
            (output / f"{name}-{sha}.bin").write_bytes(data)
            trials.add(False, "failed", reader=name, file=sha, error=repr(error)[:300])

    for number, name in enumerate(READERS):
        if share := len(trials.left()) // (len(READERS) - number):
            _feed(READERS[name][2], share, len(trials.done), functools.partial(fed, name))


def _feed(files, count, number, take):
    """Draws files; no two calls with the same number draw the same."""

    @seed(1_000_003 * flags.FLAGS.seed + number)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(files)
    def feed(data):
        take(data)

    feed()


def _command(output, workdir, *more):
    """The training that is killed: sizes for which all is saving, compiled once."""
    return [
        sys.executable, "-m", "experiments.train", "--preset=tiny", "--width=8", "--heads=2",
        "--feed_forward=16", "--tile_rows=2", "--meta_batch=2", "--validation_episodes=2",
        "--validate_every=2", f"--iterations={_STEPS}", "--patience=99", f"--workdir={workdir}",
        f"--compilation_cache={output / 'programs'}", "--cpu_devices=1", *more,
    ]  # fmt: skip


def _run(command, kill=None, **more):
    """(exit code, what it printed); killed with -9 when `kill()` says so, if it gets there."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **more.pop("environment", {})}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        with subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True, **more,
        ) as program:  # fmt: skip
            end = time.monotonic() + _PROGRAM_SECONDS
            while program.poll() is None and time.monotonic() < end and not (kill and kill()):
                time.sleep(0.003)
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
        said.seek(0)
        return program.returncode, said.read()


def _random_moment(rng, path, whole):
    """(function, text) of a moment to kill: so much of what is written is there, and a while."""
    size, delay, since = rng.randint(0, _size(whole)), rng.uniform(0.0, 0.5), []

    def kill():
        if not since and _size(path) >= size:
            since.append(time.monotonic())
        return since and time.monotonic() - since[0] >= delay

    return kill, f"{delay:.3f} s after {size:,} bytes"


def _size(path):
    """Bytes of a file or of a folder's files; they may come and go meanwhile."""
    total = 0
    inside = [pathlib.Path(at, name) for at, _, names in os.walk(path) for name in names]
    for one in inside or [path]:
        with contextlib.suppress(OSError):
            total += one.stat().st_size if one.is_file() else 0
    return total


def _state(workdir):
    """Digests of the latest and of the best parameters, and the rows of the log without times."""
    from mtml_jax.runlog import read_log

    timing = {"seconds", "tokens_per_second"}
    rows = [
        {k: repr(v) for k, v in row.items() if k not in timing}
        for row in read_log(workdir / "log.jsonl")
        if row["kind"] != "note"
    ]
    return [digest(restore_params(workdir, which).params) for which in ("latest", "best")] + [rows]


def _reference(output):
    """The run that nothing happens to."""
    workdir = output / "whole"
    if not (output / "whole.json").exists():
        shutil.rmtree(workdir, ignore_errors=True)
        code, text = _run(_command(output, workdir))
        if code:
            raise RuntimeError(f"the run that nothing happens to failed: {text[-500:]}")
        write_json(output / "whole.json", {"bytes of the log": _size(workdir / "log.jsonl")})
    return workdir


def _training(trials, output):
    """Kills at random moments; the run has to end with the bits of the whole one."""
    whole = _reference(output)
    wanted = _state(whole)
    for number in trials.left():
        rng = random.Random(f"{flags.FLAGS.seed} {number}")
        workdir = output / "killed"
        shutil.rmtree(workdir, ignore_errors=True)
        after, kills = [], 0
        for _ in range(rng.choice([1, 1, 2, 3])):  # some runs are killed again and again
            kill, told = _random_moment(rng, workdir / "log.jsonl", whole / "log.jsonl")
            after.append(told)
            kills += _run(_command(output, workdir), kill)[0] == -signal.SIGKILL
        code, text = _run(_command(output, workdir))
        same = code == 0 and _state(workdir) == wanted
        quiet = "Traceback" not in text and not (workdir / "damaged").exists()
        trials.add(
            same and quiet, "same bits", kills=kills, after=after, said="" if same else text[-800:]
        )


def _evaluate_command(output, workdir, result):
    return [
        sys.executable, "-m", "experiments.evaluate", f"--workdir={workdir}", "--shots=0,2",
        "--max_folds=12", "--folds_at_once=1", "--decoder=greedy", f"--output={result}",
        f"--compilation_cache={output / 'programs'}", "--cpu_devices=1", "--resamples=10",
    ]  # fmt: skip


def _evaluation(trials, output):
    """Kills during an evaluation; no fold is lost, none done twice, the report is the same."""
    whole = _reference(output)
    report, name, folds = output / "report", "test.json", "test.folds.jsonl"
    if not (report / name).exists():
        shutil.rmtree(report, ignore_errors=True)
        if _run(_evaluate_command(output, whole, report))[0]:
            raise RuntimeError("the evaluation that nothing happens to failed")
    wanted = json.loads((report / name).read_text())
    for number in trials.left():
        rng = random.Random(f"evaluation {flags.FLAGS.seed} {number}")
        result = output / "killed_report"
        shutil.rmtree(result, ignore_errors=True)
        command = _evaluate_command(output, whole, result)
        kill, told = _random_moment(rng, result / folds, report / folds)
        kills = _run(command, kill)[0] == -signal.SIGKILL
        code, text = _run(command)
        same = code == 0 and json.loads((result / name).read_text()) == wanted
        with FoldsFile(result / folds, json.loads((result / "test.settings.json").read_text())) as done:
            same = same and (result / folds).read_text().count("\n") == len(done.rows)
        trials.add(
            same, "same report", kills=kills, after=told, said="" if same else text[-800:]
        )


def _preparation(trials, output):
    """Kills while dialogues are prepared; the next start reads all and leaves no remains."""
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
    _run(command, environment={"TFDS_DATA_DIR": str(undisturbed)})
    for number in trials.left():
        rng = random.Random(f"preparation {flags.FLAGS.seed} {number}")
        shutil.rmtree(home, ignore_errors=True)
        kill, told = _random_moment(rng, home, undisturbed)
        environment = {"TFDS_DATA_DIR": str(home)}
        kills = _run(command, kill, environment=environment)[0] == -signal.SIGKILL
        code, text = _run(command, environment=environment)
        whole = code == 0 and text.split()[-2:] == ["3000", "30"]
        whole = whole and _names(home) == _names(undisturbed)
        trials.add(whole, "all read", kills=kills, after=told, said="" if whole else text[-800:])


def _study(trials, output):
    """Kills while cells of a study are made; the next start ends with the same cells."""
    whole, killed = output / "study", output / "killed_study"

    def command(folder):
        return [
            sys.executable, "-m", "experiments.study", "--preset=tiny", "--iterations=6",
            "--inner_lr=0.1", "--rows=std,paml,paml-latest", "--seeds=1", "--shots=1",
            "--folds_per_persona=1", "--cpu_devices=1", f"--output={folder}",
            f"--compilation_cache={output / 'programs'}",
        ]  # fmt: skip

    code, text = _run(command(whole))  # nothing, where it was made before
    if code:
        raise RuntimeError(f"the study that nothing happens to failed: {text[-500:]}")
    for number in trials.left():
        rng = random.Random(f"study {flags.FLAGS.seed} {number}")
        shutil.rmtree(killed, ignore_errors=True)
        kill, told = _random_moment(rng, killed, whole)
        kills = _run(command(killed), kill)[0] == -signal.SIGKILL
        code, text = _run(command(killed))
        same = code == 0 and _cells(killed) == _cells(whole)
        trials.add(same, "same cells", kills=kills, after=told, said="" if same else text[-800:])


def _cells(folder):
    """The results of a study without times."""
    cells = {path.name: json.loads(path.read_text()) for path in (folder / "cells").iterdir()}
    for cell in cells.values():
        del cell["test_seconds"], cell["training"]["seconds"], cell["training"]["seconds_a_step"]
    return cells


def _names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def _disk(trials, output):
    """A file may not grow any more, as on a full disk; one sentence, then it goes on."""
    whole = _reference(output)
    wanted = _state(whole)
    for number in trials.left():
        workdir = output / "full"
        shutil.rmtree(workdir, ignore_errors=True)
        most = (2_000, 6_000, 20_000)[number % 3]  # bytes: the words twice, an array

        def limit(most=most):
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        # No compiled programs either: they would be the first to fail, and harmlessly.
        code, text = _run(_command(output, workdir), preexec_fn=limit)
        *_, last = text.strip().split("\n")
        told = code == 1 and last.startswith(f"error: {workdir}") and "Traceback" not in text
        code, text = _run(_command(output, workdir))
        same = code == 0 and _state(workdir) == wanted
        trials.add(told and same, "one sentence, same bits", said=last, most=most)


def _damage(trials, output):
    """A file of the latest checkpoint is cut, changed or removed; the run ends the same."""
    whole = _reference(output)
    wanted = _state(whole)
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
        code, text = _run(_command(output, workdir))
        named = f"damaged checkpoint of step {_STEPS}" in text
        same = False
        with contextlib.suppress(OSError, ValueError):
            same = _state(workdir) == wanted
        trials.add(
            bool(found) and code == 0 and named and same, "named, same bits", how=how,
            file=str(path.relative_to(folder)), said="" if same else text[-800:],
        )  # fmt: skip


if __name__ == "__main__":
    app.run(main)
