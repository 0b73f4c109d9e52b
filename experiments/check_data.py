"""Print the data sheet of a corpus: `python -m experiments.check_data PATH`."""

import html
import json
import pathlib
import sys

from absl import app, flags, logging

from experiments import plots, startup
from mtml_jax.config import FROM_SCRATCH, PRESETS, TrainConfig
from mtml_jax.data.compare_groupings import compare_groupings, read_clusters
from mtml_jax.data.load import load_split
from mtml_jax.data.sheet import LENGTHS, PERCENTILES, Sheet, data_sheet
from mtml_jax.data.splits import SPLITS
from mtml_jax.strategies import STRATEGIES

_PATHS = "a .jsonl file, a folder of dialogue files, or demo"
_COUNTS = {
    "personas": "personas", "usable_personas": "  with two conversations or more",
    "conversations": "conversations", "seen_from_one_side": "  seen from one side only",
    "dialogues": "dialogues", "without_statements": "  without statements",
    "repeated_dialogues": "  repeated word for word",
    "texts_under_several_ids": "texts under several conversation ids", "turns": "turns",
    "reply_tokens": "tokens of replies", "reply_words": "distinct words of replies",
    "unknown_words": "  unknown to the vocabulary",
}  # fmt: skip


def define_flags() -> None:
    flags.DEFINE_enum(
        "preset", "paper", FROM_SCRATCH, "preset of the slots, meta-batch and minimum count"
    )
    flags.DEFINE_boolean("json", False, "print the sheet as JSON instead of text")
    flags.DEFINE_string(
        "html", None, "also write a page of histograms to this file; needs matplotlib"
    )
    flags.DEFINE_string("compare", None, "JSON file {label: [[statement, ...], ...]} of another "
        "persona grouping, to compare with")  # fmt: skip
    flags.DEFINE_integer(
        "split_seed", 0, "random seed of the split by persona if PATH is one file", lower_bound=0
    )
    flags.DEFINE_boolean(
        "skip_bad", False, "skip and count malformed conversations instead of stopping"
    )


def main(argv) -> None:
    logging.set_verbosity(logging.ERROR)  # TFDS logs each of its steps
    print(sheet_of(argv, flags.FLAGS))


def sheet_of(argv, options) -> str:
    """Returns what the command prints; `options` has the flags as attributes."""
    if len(argv) != 2:
        sys.exit(f"error: expected one path, {_PATHS}, got {len(argv) - 1} paths")
    config = PRESETS[options.preset]
    with startup.one_sentence("interrupted; nothing was written"):
        if options.html:
            plots.require_matplotlib("--html")
        splits, notes = read_splits(argv[1], options.split_seed, options.skip_bad)
        sheet = data_sheet(splits, config, STRATEGIES)
        sheet.numbers.update(path=argv[1], preset=options.preset, notes=notes)
        if options.compare:
            clusters = read_clusters(options.compare)
            sheet.numbers["compare"] = {
                split: compare_groupings(dialogues, clusters) for split, dialogues in splits.items()
            }
        if options.html:
            pathlib.Path(options.html).write_text(page(sheet, config), encoding="utf-8")
    return json.dumps(sheet.numbers, indent=1) if options.json else as_text(sheet.numbers)


def read_splits(path: str, split_seed: int, skip_bad: bool):
    """Reads every split that exists, as training does; returns (split -> dialogues, notes)."""
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


def as_text(numbers: dict) -> str:
    """Formats the sheet as tables of text."""
    splits = numbers["splits"]
    lines = [f"data sheet of {numbers['path']}", *numbers["notes"], ""]

    def row(name, values):
        lines.append(f"{name:<46}" + "".join(f"{value:>18}" for value in values))

    row("", splits)
    for key, name in _COUNTS.items():
        row(name, [f"{sheet[key]:,}" for sheet in splits.values()])
    unknown = [_percent(s["unknown_tokens"], s["reply_tokens"]) for s in splits.values()]
    row("unknown tokens of replies, percent", unknown)
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
    for split, result in numbers.get("compare", {}).items():
        agreement = result["adjusted_rand_index"]
        lines.append(
            f"  {split}: {result['shared']:,} of {result['sets']:,} statement sets are in the other "
            f"grouping; {result['personas']:,} personas here, {result['clusters']:,} clusters there"
            + ("" if agreement is None else f"; adjusted Rand index {agreement:.4f}")
        )
    return "\n".join(lines)


def page(sheet: Sheet, config: TrainConfig) -> str:
    """Builds a self-contained page of histograms."""
    limits = {name: getattr(config.shape, name) for name in ("context", "response", "persona")}
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
        charts = []
        for split, values in sheet.lengths.items():
            if values[name]:
                title = f"{split}: {name}"
                labels = {"title": title, "x_label": meaning, "y_label": f"number of {unit}"}
                figure = plots.histogram(values[name], limit=limits.get(name), **labels)
                charts.append(plots.as_svg(figure, title))
        if charts:
            parts.append(f"<h2>{name}</h2>" + "".join(charts))
    parts.append(f"<h2>All numbers</h2><pre>{html.escape(as_text(sheet.numbers))}</pre></html>\n")
    return "\n".join(parts)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.2f}"


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
