"""Test reliability with kills, full disks and broken files: `python -m experiments.soak`.

Each part appends its trials to OUTPUT/PART.jsonl, so that a soak that was stopped can resume,
and `soak.json` summarises all parts.
"""

import logging
import pathlib
import sys

from absl import app, flags
from absl import logging as absl_logging

from experiments import startup
from experiments.soak.parts import PARTS
from experiments.soak.trials import Trials, counted
from mtml_jax.runs.files import write_json
from mtml_jax.runs.versions import versions


def define_flags() -> None:
    flags.DEFINE_list("parts", list(PARTS), "comma-separated parts to run: " + ", ".join(PARTS))
    flags.DEFINE_string("output", "runs/soak", "folder of results and of the runs that are killed")
    flags.DEFINE_integer("files", 20_000, "number of fuzzed files", lower_bound=1)
    flags.DEFINE_integer(
        "kills", 50, "number of runs to kill: trainings, some of them several times, evaluations "
        "and preparations; and a tenth as many studies", 1,
    )  # fmt: skip
    flags.DEFINE_integer("seed", 0, "random seed of the moments of the kills and of the files")


def main(argv) -> None:
    if len(argv) > 1 or (wrong := set(flags.FLAGS.parts) - PARTS.keys()):
        sys.exit(f"error: expected --parts of {','.join(PARTS)}, got {argv[1:] or sorted(wrong)}")
    given = flags.FLAGS
    absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax logs each of its steps
    logging.getLogger().setLevel(logging.CRITICAL)
    output = pathlib.Path(given.output).resolve()
    output.mkdir(parents=True, exist_ok=True)
    fifth = given.kills // 5
    shares = {"evaluation": fifth, "preparation": fifth, "disk": 3, "damage": 12}
    shares["study"] = max(1, given.kills // 10)
    shares |= {"training": given.kills - 2 * fifth, "fuzz": given.files}
    with startup.one_sentence("interrupted; the same command continues the soak", unwind=True):
        for part in given.parts:
            with Trials(output / f"{part}.jsonl", part, shares[part]) as trials:
                PARTS[part](trials, output)
    table = {part: counted(output / f"{part}.jsonl") for part in PARTS}
    write_json(output / "soak.json", {"parts": table, "versions": versions()})
    print("| part | tried | survived | kills | kept |\n|---|---|---|---|---|")
    for part, row in table.items():
        if row["tried"]:
            kept = ", ".join(f"{n:,} {end}" for end, n in sorted(row["ends"].items()))
            print(f"| {part} | {row['tried']:,} | {row['survived']:,} | {row['kills']} | {kept} |")
    if any(row["tried"] > row["survived"] for row in table.values()):
        sys.exit(f"error: expected every trial to be survived, got failures; see {output}")


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
