"""Run the human evaluation: draw replies to rate, then report the ratings.

    python -m experiments.ratings --sample=50 --from=RUN,RUN
    python -m experiments.app                # asks the raters
    python -m experiments.ratings --report
"""

import pathlib
import sys

from absl import app, flags

from experiments import startup
from experiments.ratings.items import ALSO, draw_items
from experiments.ratings.store import RatingStore
from experiments.ratings.tables import as_csv, as_text, summarise
from mtml_jax.runs.files import write_text


def define_flags() -> None:
    flags.DEFINE_integer("sample", None, "number of turns to draw for rating (paper: 50)")
    flags.DEFINE_list("from", None, "folders of evaluated runs, whose replies are rated")
    flags.DEFINE_string("output", "ratings.sqlite", "file of items and ratings")
    flags.DEFINE_list("shots", ["10"], "numbers k of dialogues that the models adapted to")
    flags.DEFINE_integer("epoch", 10, "epoch of the adaptation after which replies are rated", lower_bound=1)
    flags.DEFINE_enum("split", "test", ["train", "valid", "test"], "split whose replies are rated")
    flags.DEFINE_list(
        "also", [], f"further systems: {', '.join(ALSO)} (adapted to another's dialogues)"
    )
    flags.DEFINE_integer("seed", 0, "random seed of the draw, the raters' orders and the intervals", 0)
    flags.DEFINE_boolean("report", False, "print the tables of the ratings so far")
    flags.DEFINE_string("csv", None, "file for the ratings so far, as CSV")
    flags.DEFINE_integer("resamples", 1000, "number of bootstrap resamples of an interval", lower_bound=1)


def main(argv) -> None:
    if len(argv) > 1:
        sys.exit(f"error: expected flags only, such as --report, got {argv[1]!r}")
    with startup.one_sentence("interrupted; no rating that was saved is lost"):
        ratings(flags.FLAGS.flag_values_dict())


def ratings(given) -> None:
    """Runs the command; `given` maps flags to values."""
    if given["sample"] is None and not given["report"] and not given["csv"]:
        raise ValueError(
            "expected --sample=50 --from=RUN,RUN, --report or --csv=FILE, got nothing to do"
        )
    if given["sample"] is not None:
        sample(given)
    if given["report"]:
        store = RatingStore(given["output"])
        print(as_text(summarise(store, seed=given["seed"], resamples=given["resamples"])))
    if given["csv"]:
        store = RatingStore(given["output"])
        write_text(pathlib.Path(given["csv"]), as_csv(store))
        print(f"{len(store.rows()):,} ratings in {given['csv']}")


def sample(given) -> RatingStore:
    """Draws the items and writes them to the file."""
    given = {**given, "from": given["from"] or [], "shots": _shots(given["shots"])}
    kept = {name: given[name] for name in ("split", "shots", "epoch", "also", "seed")}
    items = draw_items(given["from"], count=given["sample"], **kept)
    settings = {"from": given["from"], **kept, "sample": given["sample"]}
    store = RatingStore.create(given["output"], items, settings)
    personas = len({item.persona for item in items})
    print(
        f"{len(items):,} turns of {personas:,} personas, {store.count():,} replies of "
        f"{len(store.systems())} systems in {given['output']}"
    )
    print(f"next: python -m experiments.app --ratings={given['output']}")
    return store


def _shots(given):
    try:
        shots = sorted({int(k) for k in given}, reverse=True)
    except ValueError:
        shots = []
    if not shots or shots[-1] < 1:
        raise ValueError(f"expected whole numbers such as --shots=10 or --shots=10,5, got {','.join(given)}")
    return shots


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
