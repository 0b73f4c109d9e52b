"""Run the paper's study by one command: `python -m experiments.study --output=DIR`."""

import dataclasses
import json
import math
import pathlib
import shlex
import sys
from typing import Any

from absl import app, flags

from experiments import flags as settings
from experiments import startup
from experiments.study import tuning
from experiments.study.bar import Part, whole_bar
from experiments.study.cell import make_cell, step_cost, training_cost
from experiments.study.endpoint import primary_endpoint
from experiments.study.rows import chosen_rows, config_of
from mtml_jax.config import FROM_SCRATCH, PRESETS, TrainConfig
from mtml_jax.data.load import CORPORA, load_split
from mtml_jax.data.personas import group_personas, require_conversations
from mtml_jax.data.prepare import Prepared, prepare
from mtml_jax.eval.protocol import EPOCHS
from mtml_jax.nli.scorer import Scorer, load_scorer
from mtml_jax.runs.files import write_json
from mtml_jax.runs.lock import InUse
from mtml_jax.strategies import STRATEGIES

_RATES = ("inner_lr", "reduction", "outer_lr")  # settings that are searched on valid personas


@dataclasses.dataclass
class Study:
    """The settings that all cells share."""

    folder: pathlib.Path  # of results and runs
    preset: str
    config: TrainConfig  # the preset with the study's learning rates and iterations
    source: dict[str, Any]  # the flags that name the dialogues and how they are split
    data_dir: str | None  # folder of PersonaChat's files
    split: str  # whose personas are tested
    folds_per_persona: int  # number of held-out dialogues of each persona
    shots: tuple[int, ...]  # numbers of dialogues that rows adapt to
    minutes: float = math.inf  # limit for the steps of one training
    scorer: Scorer | None = None  # NLI scorer of replies against statements

    def __post_init__(self):
        self._prepared: dict[Any, Prepared] = {}
        self._costs: dict[Any, dict[str, float]] = {}

    def corpus(self) -> tuple[tuple, dict]:
        """Returns the arguments of `prepare` and `load_split`: (data, data_dir), and keywords."""
        keywords = {name: value for name, value in self.source.items() if name != "data"}
        return (self.source["data"], self.data_dir), keywords

    def prepared(self, config: TrainConfig) -> Prepared:
        """Prepares the corpus for a row, once for all rows that read the same of it."""
        strategy = STRATEGIES[config.strategy]
        key = (
            strategy.phases, strategy.persona_in_context, config.persona_context,
            config.glove and (config.glove, config.seed),
        )  # fmt: skip
        if key not in self._prepared:
            corpus, keywords = self.corpus()
            self._prepared[key] = prepare(config, *corpus, **keywords)
        return self._prepared[key]

    def cost_of(self, config: TrainConfig, data: Prepared) -> dict[str, float]:
        """Computes `step_cost` once for all seeds and alphas of a row."""
        key = dataclasses.replace(config, alpha=0.0, seed=0, glove="")
        if key not in self._costs:
            self._costs[key] = step_cost(config, data)
        return self._costs[key]


def define_flags() -> None:
    settings.define_device_flags()
    settings.define_data_flags()
    searched = "(default: searched on valid personas)"
    flags.DEFINE_string("output", None, "folder of the study (default: runs/study-DATA-PRESET)")
    flags.DEFINE_enum("preset", "tiny", FROM_SCRATCH, "preset of model sizes and training settings")
    flags.DEFINE_integer("seeds", 3, "number of random seeds of each row, counted from 0", lower_bound=1)
    flags.DEFINE_list(
        "rows", ["main"],
        "comma-separated rows: main (std, std_p, paml, mtml-0.8, amtml, multitask), paper (all of its rows), "
        "ablations, all, or names; cells that exist are not made again",
    )  # fmt: skip
    flags.DEFINE_integer("iterations", None, "number of outer steps of every run (default: the preset's)", 1)
    flags.DEFINE_float("minutes", None, "minutes that the steps of a training may take; the report names the runs it ended (default: no limit)", 0.1)
    flags.DEFINE_float("inner_lr", None, f"learning rate of SGD in the inner step {searched}", 0.0)
    flags.DEFINE_float("outer_lr", None, f"learning rate of Adam in the outer step {searched}", 0.0)
    flags.DEFINE_enum("reduction", None, ["mean", "sum"], f"reduction of a loss over its tokens {searched}")
    flags.DEFINE_enum("split", "test", ["valid", "test"], "split whose personas the rows are tested on")
    flags.DEFINE_list("shots", ["5", "10"], "numbers k of dialogues to adapt to (section 3.4)")
    flags.DEFINE_integer("folds_per_persona", 2, "number of held-out dialogues of each persona", lower_bound=1)
    flags.DEFINE_string("nli", None, "folder of an NLI scorer made by experiments.train_nli (default: none, and no C-score)")
    flags.DEFINE_string("glove", None, "text file of word vectors for the row mtml-0.8-glove")
    flags.DEFINE_boolean("tune_only", False, "stop once the rates are fixed in study.json")


def main(argv) -> None:
    startup.start(argv, "--output=runs/study")
    with startup.one_sentence("interrupted; the same command resumes the study"):
        run_study(flags.FLAGS)


def run_study(given) -> None:
    """Fixes the learning rates, then makes all cells that are missing; `given` has the flags."""
    # Resolve the flags.
    corpus = given.data if given.data in CORPORA else pathlib.Path(given.data).stem
    folder = pathlib.Path(given.output or f"runs/study-{corpus}-{given.preset}")
    base = PRESETS[given.preset]
    rows = chosen_rows(given.rows, given.glove, base)
    if given.iterations:
        every = min(base.validate_every, given.iterations)
        base = dataclasses.replace(base, iterations=given.iterations, validate_every=every)
    source = {"data": given.data}
    if given.data not in CORPORA:
        file = str(pathlib.Path(given.data).resolve())
        source = {"data": file, "split_seed": given.split_seed, "skip_bad": given.skip_bad}
    folder.mkdir(parents=True, exist_ok=True)
    study = Study(
        folder, given.preset, base, source, given.data_dir, given.split,
        given.folds_per_persona, settings.whole_numbers("shots", given.shots), given.minutes or math.inf,
    )  # fmt: skip
    _check_shots(study)

    # List the cells, all rows of one seed before the next seed.
    cells = [(row, seed) for seed in range(given.seeds) for row in rows]
    missing = [pair for pair in cells if not _cell_path(folder, *pair).exists()]
    print(
        f"{len(cells)} cells of {len(rows)} rows and {given.seeds} seeds, "
        f"{len(cells) - len(missing)} of them done already; results in {folder}",
        flush=True,
    )

    # Fix the learning rates, then train and test.
    fixed = _fix_settings(given, study)
    if fixed is None or given.tune_only:
        return
    study.config = dataclasses.replace(base, **fixed)
    if not given.nli and given.data != "demo" and missing:
        print("no C, the primary endpoint: pass a scorer from experiments.train_nli as --nli=DIR")
    if given.nli and missing:
        study.scorer = load_scorer(given.nli, folder / "nli.jsonl")
    (folder / "cells").mkdir(exist_ok=True)
    elsewhere, failed = _make_cells(study, missing)
    for name, sentence in failed.items():
        print(f"failed: {name}: {sentence}")
    if elsewhere:
        print(f"being made by other processes: {', '.join(elsewhere)}")
    if failed:
        sys.exit(f"error: {len(failed)} of {len(cells)} cells failed; the same command tries them again")
    print(f"next: python -m experiments.report {folder}")


def _check_shots(study):
    """Checks before any training that the tested personas have enough dialogues."""
    corpus, keywords = study.corpus()
    dialogues, _ = load_split(*corpus, study.split, **keywords)
    personas, _ = require_conversations(group_personas(dialogues))
    most = max((len({d.conversation for d in p.dialogues}) for p in personas), default=1) - 1
    if min(study.shots) < 1 or max(study.shots) > most:
        raise ValueError(
            f"expected --shots of numbers from 1 to {most}, since no persona of {study.split} has more "
            f"dialogues besides the held-out one, got --shots={','.join(map(str, study.shots))}"
        )


def _fix_settings(given, study):
    """Takes the rates from study.json, the flags or a search; None if another process searches."""
    path = study.folder / "study.json"
    wanted = {
        "preset": given.preset, "data": given.data, "split": given.split,
        "iterations": study.config.iterations, "folds_per_persona": given.folds_per_persona,
        "shots": list(study.shots), "epochs": list(EPOCHS),
    }  # fmt: skip
    flagged = {name: value for name in _RATES if (value := getattr(given, name)) is not None}
    if path.exists():
        saved = json.loads(path.read_text())
        for name, value in {**wanted, **flagged}.items():
            before = saved["settings"][name] if name in flagged else saved.get(name)
            if before != value:
                raise ValueError(
                    f"{path}: expected the study's {name} {before!r}, got {value!r}; choose another "
                    "folder with --output"
                )
        if given.seeds > saved["seeds"]:
            write_json(path, {**saved, "seeds": given.seeds})
        return saved["settings"]
    trials = []
    if flagged:
        chosen = {name: flagged.get(name, getattr(study.config, name)) for name in _RATES}
    else:
        trials = _search(study)
        if trials is None:
            return None
        best = tuning.best_of(trials)
        chosen = {name: best[name] for name in _RATES}
    write_json(path, {
        **wanted,
        "seeds": given.seeds,
        "settings": chosen,
        "chosen_by": "the least own_ppl of tuning/" if trials else "flags",
        "endpoint": primary_endpoint(given.data, study.shots),
        "command": shlex.join(["python", "-m", "experiments.study", *sys.argv[1:]]),
    })  # fmt: skip
    print("fixed in study.json:", ", ".join(f"{name} {value}" for name, value in chosen.items()))
    return chosen


def _search(study):
    """Runs all trials on valid personas; returns None if another process is running one."""
    first = tuning.first_trials(study.config)
    with whole_bar(len(first) + len(tuning.OUTER_RATES)) as bar:
        found, held = _try(study, first, bar)
        if held:
            return None
        best = tuning.best_of(found)
        rates = {name: best[name] for name in _RATES}
        second = tuning.second_trials(dataclasses.replace(first[0], **rates))
        more, held = _try(study, second, bar)
    return None if held else found + more


def _try(study, configs, bar):
    """Runs the trials that are missing; returns (results, whether others are still running)."""
    found, held = [], []
    for number, config in enumerate(configs, start=1):
        name = tuning.name_of(config)
        path = study.folder / "tuning" / f"{name}.json"
        part = Part(bar, f"trial {number} of {len(configs)}, {name}", 1.0)
        if not path.exists() and tuning.is_past(config, found):
            part.finish()
            continue
        if not path.exists():
            part.stage("training", 0.8, config.iterations)
            try:
                trial = tuning.run_trial(config, study, part)
                path.parent.mkdir(exist_ok=True)
                write_json(path, trial)
            except InUse:
                held.append(name)
                continue
        part.finish()
        found.append(json.loads(path.read_text()))
    if held:
        print(f"being run by other processes: {', '.join(held)}; start again when they are done")
    return found, bool(held)


def _make_cells(study, missing):
    """Makes cells one after the other; returns those of other processes, and failures by name."""
    elsewhere, failed = [], {}
    costs = [1 + training_cost(config_of(row, study.config, seed)) for row, seed in missing]
    with whole_bar(sum(costs)) as bar:
        for number, ((row, seed), cost) in enumerate(zip(missing, costs), start=1):
            name = f"{row.name}.{seed}"
            part = Part(bar, f"cell {number} of {len(missing)}, {name}", cost)
            path = _cell_path(study.folder, row, seed)
            if not path.exists():  # another process may have made it by now
                try:
                    write_json(path, make_cell(row, seed, study, part), indent=None)
                except FloatingPointError as error:
                    failed[name] = str(error)
                except InUse:
                    elsewhere.append(name)
            part.finish()
    return elsewhere, failed


def _cell_path(folder, row, seed):
    return folder / "cells" / f"{row.name}.{seed}.json"


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
