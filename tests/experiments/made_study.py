"""Write the folder of a study with known numbers, and read its statistics back."""

import json
import math

import numpy as np

from experiments.study.rows import ROWS
from mtml_jax.eval.metrics import bleu_statistics

EPOCHS = [1, 3, 5, 7, 10]
PERSONAS = 13
# Row -> PPL unadapted and adapted, C own unadapted and adapted.
SHAPES = {
    "std": (11.0, 8.6, 0.00, 0.22), "std_p": (12.5, 9.3, 0.02, 0.25),
    "paml": (12.0, 8.1, 0.01, 0.31), "mtml-0.5": (21.0, 12.6, 0.05, 0.52),
    "mtml-0.6": (18.0, 11.3, 0.04, 0.48), "mtml-0.7": (16.0, 10.2, 0.03, 0.46),
    "mtml-0.8": (14.0, 9.0, 0.03, 0.43), "mtml-0.9": (13.0, 8.4, 0.02, 0.36),
    "amtml": (15.5, 9.8, 0.04, 0.40), "multitask": (13.0, 9.1, 0.02, 0.33),
    "mtml-0.8-first_order": (14.5, 9.2, 0.02, 0.40),
    "mtml-0.8-distinct_start": (13.8, 8.9, 0.02, 0.41),
    "paml-latest": (12.1, 7.9, 0.02, 0.33),
}  # fmt: skip


def statistics(rng, ppl, c, *, nli, facts, personas=PERSONAS, gold=False):
    """Statistics of personas with 20 replies of 30 tokens each, scattered around PPL and C."""
    nll = 600 * (math.log(ppl) + rng.normal(0, 0.05, personas))
    hits = rng.binomial(20, np.clip(c, 0, 1), personas)
    shuffled = rng.binomial(20, 0.05, personas)
    reply = "i have a dog and he is big" if gold else "i have a dog , he is not so big"
    bleu = bleu_statistics([reply], ["i have a dog and he is big"])[0]
    found = {
        "dialogues": np.full(personas, 3), "replies": np.full(personas, 20),
        "words": np.full(personas, 160), "bleu": np.tile(bleu, (personas, 1)),
        "dialogue_bleu": np.full(personas, 2.0), "repeats": rng.binomial(20, 0.05, personas),
        "unigrams": np.full(personas, 160), "bigrams": np.full(personas, 140),
    }  # fmt: skip
    if not gold:
        found |= {"nll": nll, "tokens": np.full(personas, 600), "dialogue_ppl": 3 * np.exp(nll / 600)}
    if nli:
        zeros, pairs = np.zeros(personas, int), np.full(personas, 100)
        found["c"] = np.stack([found["replies"], pairs, hits, zeros], 1)
        found["c_shuffled"] = np.stack([found["replies"], pairs, shuffled, zeros], 1)
    if facts:
        found["facts"] = np.stack([hits, shuffled, 20 - np.minimum(hits + shuffled, 20)], 1)
    return {name: values.tolist() for name, values in found.items()}


def cell(row, seed, *, nli=True, facts=False, shots=(5, 10), epochs=EPOCHS, personas=PERSONAS):
    """What `experiments.study` keeps of one row and seed."""
    rng = np.random.default_rng([seed, *row.encode()])
    ppl, adapted, c, reached = SHAPES[row]
    reached += rng.normal(0, 0.03)
    known = ROWS[row]
    name = known.base or row
    made = dict(nli=nli, facts=facts, personas=personas)
    gold = np.random.default_rng(7)
    test = [("human", 0, 0, statistics(gold, 2.0, 0.45, gold=True, **made))]
    test.append(("unadapted", 0, 0, statistics(rng, ppl, c, **made)))
    for k in shots:
        for epoch in epochs:
            done = (1 - math.exp(-epoch / 4)) * (1 if k == 10 else 0.8)
            own = statistics(rng, ppl + done * (adapted - ppl), c + done * (reached - c), **made)
            other = statistics(rng, ppl * (1 + 0.03 * done), c + 0.1 * done * (reached - c), **made)
            test += [("own", k, epoch, own), ("other", k, epoch, other)]
    steps = range(0, 301, 10)
    learns = name.startswith(("mtml", "amtml", "multi"))
    persona = [round(1 + 4 * math.exp(-s / 60), 3) if learns else None for s in steps]
    response = [round(math.log(adapted) + 4 * math.exp(-s / 70), 3) for s in steps]
    replies = {"10-shot, other": "", "10-shot, own": "my *dog* is called rex",
               "5-shot, own": "i sail | a lot", "unadapted": "i like <script>alert(1)</script> tea"}
    said = [["other", "hello , how are you ?"], ["self", "i am well ."], ["other", "any pets ?"]]
    return {
        "row": row, "label": known.label, "group": known.group, "base": known.base,
        "strategy": name.split("-")[0], "alpha": float(name[5:]) if name[:4] == "mtml" else None,
        "seed": seed, "checkpoint": known.checkpoint, "config": {},
        "nli": "49cb1dedaec3535d" if nli else None, "device": "cpu", "devices": 2,
        "versions": {"jax": "0.10.2", "python": "3.12.1"}, "commit": "07be9d4", "command": "",
        "personas": personas, "folds": 2 * personas, "turns": 20 * personas,
        "effective_shots": {str(k): float(k) for k in shots},
        "training": {
            "iterations": 300, "reason": "iterations", "best_step": 250 + 10 * seed,
            "best_score": adapted, "seconds": 61.0 + seed, "seconds_a_step": 0.2, "tokens": 812345,
            "parameters": 51234, "temporary_bytes": 17_200_000, "operations": 1.9e9,
            "curve": {
                "train": [list(line) for line in zip(steps, response, persona)],
                "valid": [[s, 9 + 90 * math.exp(-s / 50), 8 + 90 * math.exp(-s / 50)]
                          for s in range(50, 301, 50)],
            },
        },
        "test": [dict(zip(("system", "shots", "epoch", "statistics"), t)) for t in test],
        "test_seconds": 33.0,
        "reconstruction": reconstructed(rng) if learns and "latest" not in row else None,
        "samples": [{"persona": "ann", "statements": ["i sail .", "i have a dog ."],
                     "utterances": said, "gold": "a dog & a cat", "replies": replies}],
    }  # fmt: skip


def reconstructed(rng):
    rows = []
    for variant in ("both_sides", "own_only"):
        for seen in range(1, 8):
            f1 = 0.2 + 0.06 * seen + rng.normal(0, 0.01)
            ppl = 9.0 / (1 + 0.2 * seen)
            values = {"token_f1": f1, "token_f1_shuffled": 0.2, "statement_recall": f1 / 2,
                      "statement_recall_shuffled": 0.05, "ppl": ppl, "ppl_shuffled": 11.0}
            known = {n: {"value": v, "low": v - 0.02, "high": v + 0.02} for n, v in values.items()}
            rows.append({"variant": variant, "turns_seen": seen, "dialogues": 100 if seen < 7 else 3,
                         "personas": 9, "tokens": 900, "scores": known})
    return rows


def save_study(folder, rows, seeds=3, *, score="c_own_minus_shuffled", **made):
    """A folder as a study leaves it; `rows` are names, or name -> seeds."""
    given = rows if isinstance(rows, dict) else {row: range(seeds) for row in rows}
    for name in ("cells", "tuning"):
        (folder / name).mkdir(parents=True)
    chosen = {"inner_lr": 0.1, "reduction": "mean", "outer_lr": 0.01}
    told = {
        "preset": "tiny", "data": "demo", "split": "test", "seeds": seeds, "shots": [5, 10],
        "epochs": EPOCHS, "settings": chosen, "iterations": 300, "folds_per_persona": 2,
        "endpoint": {"score": score, "one": "mtml-0.8", "other": "paml", "shots": 10, "epoch": 10},
        "command": "python -m experiments.study --preset=tiny --data=demo --output=results/demo",
    }  # fmt: skip
    (folder / "study.json").write_text(json.dumps(told))
    for row, numbers in given.items():
        for seed in numbers:
            path = folder / "cells" / f"{row}.{seed}.json"
            path.write_text(json.dumps(cell(row, seed, **made)))
    for rate in (0.005, 0.1):
        trial = {**chosen, "inner_lr": rate, "iterations": 100, "strategy": "mtml",
                 "moved": rate / 50, "second_order_share": rate, "initial_ppl": 20.0,
                 "adapted_ppl": 19.0, "own_ppl": 12.0, "other_ppl": "inf", "seconds": 30.0}
        (folder / "tuning" / f"mtml-{rate}.json").write_text(json.dumps(trial))
    return folder


def stage(folder, row, seed, system="own", shots=10, epoch=10):
    told = json.loads((folder / "cells" / f"{row}.{seed}.json").read_text())
    (found,) = (
        t["statistics"]
        for t in told["test"]
        if (t["system"], t["shots"], t["epoch"]) == (system, shots, epoch)
    )
    return {name: np.array(values, float) for name, values in found.items()}


def ppl(found):
    return math.exp(found["nll"].sum() / found["tokens"].sum())


def c(found, name="c"):
    replies, _, entailed, contradicted = found[name].sum(axis=0)
    return (entailed - contradicted) / replies
