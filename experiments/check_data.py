"""The data sheet of a corpus: `python -m experiments.check_data PATH`."""

import html
import json
import pathlib
import sys

from absl import app, flags, logging

from experiments.histogram import histogram_svg
from mtml_jax.config import PRESETS, TrainConfig
from mtml_jax.data.prepare import load_split
from mtml_jax.data.sheet import LENGTHS, PERCENTILES, Sheet, compare_groupings, data_sheet
from mtml_jax.data.splits import SPLITS
from mtml_jax.strategies import STRATEGIES

_WANTED = "a .jsonl file, a folder of dialogue files, or demo"


def define_flags() -> None:
    flags.DEFINE_enum(
        "preset", "paper", list(PRESETS), "preset whose slots, meta-batch and minimum word count are checked"
    )
    flags.DEFINE_boolean("json", False, "print the sheet as JSON instead of text")
    flags.DEFINE_string("html", None, "file for a page of histograms, as HTML")
    flags.DEFINE_string(
        "compare", None, "JSON file of another persona grouping, {label: [[statement, ...], ...]}"
    )
    flags.DEFINE_integer(
        "split_seed", 0, "random seed of the split by persona, where PATH is one file", lower_bound=0
    )
    flags.DEFINE_boolean(
        "skip_bad", False, "count and report malformed conversations instead of stopping"
    )


def main(argv) -> None:
    logging.set_verbosity(logging.ERROR)  # TFDS tells of each of its steps
    print(sheet_of(argv, flags.FLAGS))


def sheet_of(argv, given) -> str:
    """What the command prints; `given` has the flags as attributes."""
    if len(argv) != 2:
        sys.exit(f"error: got {len(argv) - 1} paths, want one: {_WANTED}")
    config = PRESETS[given.preset]
    try:
        splits, notes = read_splits(argv[1], given.split_seed, given.skip_bad)
        sheet = data_sheet(splits, config, STRATEGIES)
        sheet.numbers.update(path=argv[1], preset=given.preset, notes=notes)
        if given.compare:
            clusters = read_clusters(given.compare)
            sheet.numbers["compare"] = {
                split: compare_groupings(dialogues, clusters)
                for split, dialogues in splits.items()
            }
        if given.html:
            pathlib.Path(given.html).write_text(page(sheet, config), encoding="utf-8")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    return json.dumps(sheet.numbers, indent=1) if given.json else as_text(sheet.numbers)


def read_splits(path: str, split_seed: int, skip_bad: bool):
    """(split -> dialogues, sentences): every split that there is, as training reads them."""
    source = (path, None)
    if pathlib.Path(path).is_dir() and not any(pathlib.Path(path).glob("*.jsonl")):
        source = ("personachat", path)
    splits, notes, missing = {}, [], None
    for split in SPLITS:
        try:
            splits[split], more = load_split(
                *source, split, split_seed=split_seed, skip_bad=skip_bad
            )
        except FileNotFoundError as error:
            missing = missing or error
        else:
            notes += more
    if not splits:
        raise missing
    return splits, notes


def read_clusters(path: str) -> dict[str, list[list[str]]]:
    """Reads another persona grouping.

    Raises:
      ValueError: the file does not hold one; the message names it.
    """
    try:
        clusters = json.loads(pathlib.Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: found no JSON ({error}), want {{label: [[statement, ...], ...]}}"
        ) from None
    sound = isinstance(clusters, dict) and all(
        isinstance(sets, list)
        and all(isinstance(s, list) and all(isinstance(t, str) for t in s) for s in sets)
        for sets in clusters.values()
    )
    if not sound:
        raise ValueError(
            f"{path}: found JSON of another form, want {{label: [[statement, ...], ...]}}"
        )
    return clusters


def as_text(numbers: dict) -> str:
    """The sheet as tables of text."""
    splits = numbers["splits"]
    lines = [f"data sheet of {numbers['path']}", *numbers["notes"], ""]

    def row(name, values):
        lines.append(f"{name:<46}" + "".join(f"{value:>18}" for value in values))

    def counts(name, key):
        row(name, [f"{key(sheet):,}" for sheet in splits.values()])

    row("", splits)
    counts("personas", lambda s: s["personas"])
    counts("  with two conversations or more", lambda s: s["usable_personas"])
    counts("conversations", lambda s: s["conversations"])
    counts("  seen from one side alone", lambda s: s["seen_from_one_side"])
    counts("dialogues", lambda s: s["dialogues"])
    counts("  without statements", lambda s: s["without_statements"])
    counts("  repeated word for word", lambda s: s["repeated_dialogues"])
    counts("texts under several conversation ids", lambda s: s["texts_under_several_ids"])
    counts("turns", lambda s: s["turns"])
    counts("tokens of replies", lambda s: s["reply_tokens"])
    counts("distinct words of replies", lambda s: s["reply_words"])
    counts("  unknown to the vocabulary", lambda s: s["unknown_words"])
    row(
        "unknown tokens of replies, percent",
        [f"{_percent(s['unknown_tokens'], s['reply_tokens'])}" for s in splits.values()],
    )
    lines += ["", "percentiles " + " / ".join(f"{p}" for p in PERCENTILES[:-1]) + " / largest"]
    lines.append(" " * 12 + "".join(f"{split:>24}" for split in splits))
    for name, meaning in LENGTHS.items():
        cells = [
            " / ".join(f"{n}" for n in s["lengths"][name].values()) if name in s["lengths"] else "-"
            for s in splits.values()
        ]
        lines.append(f"{name:<12}" + "".join(f"{cell:>24}" for cell in cells) + f"   {meaning}")
    lines += ["", f"cut to the slots of --preset={numbers['preset']}"]
    for name in ("contexts", "responses", "personas"):
        cut = [(s["cut"][name], s["turns"]) for s in splits.values()]
        row(f"  {name}, of turns", [f"{n:,} ({_percent(n, turns)} %)" for n, turns in cut])
    lines += ["", f"vocabulary: {numbers['vocabulary']:,} words and specials"]
    for overlap in numbers["overlap"]:
        one, other = overlap["splits"]
        lines.append(
            f"in {one} and {other}: {overlap['personas']:,} personas, "
            f"{overlap['dialogues']:,} dialogues of {one} by their text"
        )
    lines += ["", "strategies"]
    lines += [f"  {name:<6} {answer}" for name, answer in numbers["strategies"].items()]
    lines += ["", "another grouping"] if "compare" in numbers else []
    for split, found in numbers.get("compare", {}).items():
        agreement = found["adjusted_rand_index"]
        lines.append(
            f"  {split}: {found['shared']:,} of {found['sets']:,} statement sets are in the other "
            f"grouping; {found['personas']:,} personas here, {found['clusters']:,} clusters there"
            + ("" if agreement is None else f"; adjusted Rand index {agreement:.4f}")
        )
    return "\n".join(lines)


def page(sheet: Sheet, config: TrainConfig) -> str:
    """A page of histograms that needs nothing but itself."""
    limits = {"context": config.shape.context, "response": config.shape.response}
    limits["persona"] = config.shape.persona
    path = html.escape(str(sheet.numbers["path"]))
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Data sheet of {path}</title>"
        "<style>body{font-family:sans-serif;margin:2em;color:#222;background:#fff}"
        "svg{margin:4px}pre{overflow-x:auto}</style>"
        f"<h1>Data sheet of {path}</h1>"
    ]
    for name, meaning in LENGTHS.items():
        unit = "personas" if name == "dialogues" else "turns"
        unit = "dialogues" if name in ("turns", "persona") else unit
        charts = [
            histogram_svg(
                values[name],
                title=f"{split}: {name}",
                x_label=meaning,
                y_label=f"number of {unit}",
                limit=limits.get(name),
            )
            for split, values in sheet.lengths.items()
            if values[name]
        ]
        if charts:
            parts.append(f"<h2>{name}</h2>" + "".join(charts))
    parts.append(f"<h2>All numbers</h2><pre>{html.escape(as_text(sheet.numbers))}</pre></html>\n")
    return "\n".join(parts)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.2f}"


if __name__ == "__main__":
    define_flags()
    app.run(main)
