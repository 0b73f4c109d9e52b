"""Draw what human raters see: replies of several systems to the same contexts."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mtml_jax.strategies import STRATEGIES

ALSO = ("human", "unadapted", "other")


class System(NamedTuple):
    """A system that replied.

    Attributes:
      name: its name in the tables.
      shots: k, the number of dialogues that it was adapted to; 0 if it does not adapt, which
        puts it into the table of every k.
    """

    name: str
    shots: int


@dataclasses.dataclass(frozen=True)
class Item:
    """A turn with the replies of all systems.

    Attributes:
      persona: name of the speaker.
      statements: the speaker's persona statements.
      conversation: id of the conversation.
      turn: counts from 1.
      utterances: (who, text) before the reply; who is "self" or "other". Empty if the
        generations have none.
      context: the same as one string, of which the end is kept.
      replies: system -> reply.
    """

    persona: str
    statements: tuple[str, ...]
    conversation: str
    turn: int
    utterances: tuple[tuple[str, str], ...]
    context: str
    replies: dict[System, str]


def draw_items(
    workdirs: Sequence[str],
    *,
    split: str,
    shots: Sequence[int],
    epoch: int,
    also: Sequence[str],
    count: int,
    seed: int,
) -> list[Item]:
    """Draws turns that all evaluations share, spread over the personas as evenly as possible.

    `experiments.evaluate` has tested the runs in `workdirs`; for the other settings see the flags
    of `experiments.ratings`. With one seed, a smaller count draws the beginning of a larger one.

    Returns:
      Items, one persona after the other in turn, so that any beginning is balanced too.

    Raises:
      FileNotFoundError: a run has no generations.
      ValueError: generations cannot be read, lack a system or share too few turns.
    """
    if not workdirs:
        raise ValueError("expected --from=RUN,RUN, folders of evaluated runs, got no --from")
    if len(set(workdirs)) < len(workdirs):
        raise ValueError(f"expected each folder once, got one twice in --from={','.join(workdirs)}")
    if count < 1:
        raise ValueError(f"expected --sample of 1 or more, got --sample={count}")
    if unknown := set(also) - set(ALSO):
        got = ",".join(sorted(unknown))
        raise ValueError(f"expected any of {', '.join(ALSO)} as --also, got --also={got}")
    names = _run_names(workdirs)
    runs = {name: _read(_path(w, split)) for name, w in zip(names, workdirs)}
    systems = _systems(names, shots, epoch, also)
    for (name, lines), workdir in zip(runs.items(), workdirs):
        _check_systems(workdir, lines, [key for run, key in systems.values() if run == name])
    shared = set.intersection(*(set(lines) for lines in runs.values()))
    if not shared:
        raise ValueError(
            f"{', '.join(workdirs)}: expected evaluations of one split of the same data, got no turn "
            "that all have"
        )
    if len(shared) < count:
        raise ValueError(
            f"expected {count} turns that all have, got {len(shared)}; lower --sample to "
            f"{len(shared)} or less"
        )
    items = []
    for key in _balanced(shared, count, seed):
        line = runs[names[0]][key]
        replies = {
            system: line["gold"] if run is None else runs[run][key]["replies"][wanted]
            for system, (run, wanted) in systems.items()
        }
        said = tuple((who, text) for who, text in line["utterances"])
        place = line["conversation"], line["turn"], said, line["context"]
        items.append(Item(line["persona"], tuple(line["statements"]), *place, replies))
    return items


def _systems(names, shots, epoch, also) -> dict[System, tuple[str | None, str]]:
    """System -> (run, key among its replies); no run for the human reply."""
    systems = {}
    for k in shots:
        for name in names:
            systems[System(name, k)] = (name, f"own, {k}-shot, epoch {epoch}")
            if "other" in also:
                key = f"other, {k}-shot, epoch {epoch}"
                systems[System(f"{name}, another's dialogues", k)] = (name, key)
    if "unadapted" in also:
        for name in names:
            systems[System(f"{name}, unadapted", 0)] = (name, "unadapted, 0-shot, epoch 0")
    if "human" in also:
        systems[System("human", 0)] = (None, "")
    return systems


def _balanced(keys, count, seed):
    rng = np.random.default_rng(seed)
    by_persona: dict[str, list] = {}
    for key in sorted(keys):
        by_persona.setdefault(key[0], []).append(key)
    personas = [list(by_persona)[i] for i in rng.permutation(len(by_persona))]
    waiting = {
        p: [by_persona[p][i] for i in rng.permutation(len(by_persona[p]))] for p in personas
    }
    drawn = []
    while len(drawn) < count:
        drawn += [waiting[p].pop() for p in personas if waiting[p]]
    return drawn[:count]


def _path(workdir, split):
    folders = pathlib.Path(workdir) / "eval", pathlib.Path(workdir)
    for folder in folders:
        if (path := folder / f"{split}.generations.jsonl").is_file():
            return path
    raise FileNotFoundError(
        f"{workdir}: expected eval/{split}.generations.jsonl, got none; run "
        f"python -m experiments.evaluate --workdir={workdir} --split={split}"
    )


def _read(path) -> dict[tuple, dict[str, Any]]:
    """Lines by what they are a reply to: (persona, conversation, turn, human reply)."""
    lines = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
            utterances = [[str(who), str(said)] for who, said in line.get("utterances", [])]
            line = {
                "persona": str(line["persona"]),
                "statements": [str(s) for s in line["statements"]],
                "conversation": str(line["conversation"]),
                "turn": int(line["turn"]),
                "utterances": utterances,
                "context": str(line["context"]),
                "gold": str(line["gold"]),
                "replies": {str(k): str(v) for k, v in dict(line["replies"]).items()},
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{path}:{number}: expected a line of experiments.evaluate, got {text[:40]!r}"
            ) from None
        lines[line["persona"], line["conversation"], line["turn"], line["gold"]] = line
    if not lines:
        raise ValueError(f"{path}: expected replies, got none; evaluate one dialogue or more")
    return lines


def _check_systems(workdir, lines, wanted):
    present = set.intersection(*(set(line["replies"]) for line in lines.values()))
    for key in wanted:
        if key not in present:
            some = sorted(name for name in present if name.startswith(key.split(",")[0]))
            raise ValueError(
                f"{workdir}: expected replies of {key!r}, got {'; '.join(some) or 'none of that kind'}"
                "; change --shots, --epoch or --also"
            )


def _run_names(workdirs):
    """As in the paper's tables, with the folder where that is not enough."""
    names = []
    for workdir in map(pathlib.Path, workdirs):
        name = workdir.resolve().name
        for folder in (workdir, workdir.resolve().parent):
            if (folder / "config.json").is_file():
                try:
                    config = json.loads((folder / "config.json").read_bytes())
                    name = STRATEGIES[config["strategy"]].label
                    name += f" {config['alpha']}" if STRATEGIES[config["strategy"]].reads_alpha else ""
                except (ValueError, KeyError, TypeError):
                    pass
                break
        names.append(name)
    for suffixes in ([f"({pathlib.Path(w).resolve().name})" for w in workdirs], workdirs):
        names = [
            f"{name} {suffix}" if names.count(name) > 1 else name
            for name, suffix in zip(names, suffixes)
        ]
    return names
