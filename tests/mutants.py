"""Breaks the numerics one change at a time and checks that a test fails.

    python tests/mutants.py --count=150 [--seed=0] [--modules meta/inner model/losses]

Works on a copy of the checkout and prints each mutant that survives. Results are appended to
`mutants.jsonl`, from which an interrupted run resumes. Compiled programs are cached next to the
copy, since most of them are those of the previous mutant.
"""

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    "meta/inner": ["tests/meta/test_inner.py"],
    "meta/second_order": ["tests/meta/test_inner.py"],
    "meta/objectives": ["tests/meta"],
    "meta/gradient": ["tests/meta"],
    "model/losses": ["tests/model/test_losses.py", "tests/meta"],
    "eval/metrics": ["tests/eval/test_metrics.py", "tests/eval/test_scores.py"],
    "nli/consistency": ["tests/nli/test_consistency.py", "tests/eval/test_scores.py"],
}
SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Mod: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.FloorDiv: ast.Mult,
}  # fmt: skip


def changes(tree):
    """Lists (node number, function that changes the node in place) of all possible mutants."""
    found = []
    for number, node in enumerate(ast.walk(tree)):
        if isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in SWAPS:
            found.append((number, lambda n: setattr(n, "op", SWAPS[type(n.op)]())))
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
            found.append((number, lambda n: n.ops.__setitem__(0, SWAPS[type(n.ops[0])]())))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            found.append((number, lambda n: setattr(n, "value", not n.value)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            found.append((number, lambda n: setattr(n, "value", n.value + 1)))
        elif isinstance(node, (ast.If, ast.IfExp)):
            found.append((number, lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))))
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            found.append((number, lambda n: setattr(n, "op", ast.UAdd())))
    return found


def _left_out(folder, names):
    """Names what is not copied: the history, virtual environments and trained runs."""
    unwanted = shutil.ignore_patterns(".git", ".venv*")(folder, names)
    return unwanted | ({"runs"} & {*names} if Path(folder) == ROOT else set())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modules", nargs="+", default=list(TESTS), choices=list(TESTS))
    parser.add_argument("--record", type=Path, default=Path("mutants.jsonl"))
    given = parser.parse_args()
    trees = {name: ast.parse((ROOT / f"mtml_jax/{name}.py").read_text()) for name in given.modules}
    drawn = [(name, index) for name in trees for index in range(len(changes(trees[name])))]
    drawn = sorted(random.Random(given.seed).sample(drawn, min(given.count, len(drawn))))
    rows = {}
    if given.record.exists():
        for line in given.record.read_text().splitlines():
            row = json.loads(line)
            rows[row["module"], row["change"]] = row
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        environment = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path(folder) / "programs"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }
        shutil.copytree(ROOT, work, ignore=_left_out)
        for name, index in tqdm(drawn, unit="mutant"):
            if (name, index) in rows:
                continue
            tree = copy.deepcopy(trees[name])
            number, change = changes(tree)[index]
            node = list(ast.walk(tree))[number]
            change(node)
            path = work / f"mtml_jax/{name}.py"
            whole = path.read_text()
            path.write_text(ast.unparse(ast.fix_missing_locations(tree)))
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
            try:
                code = subprocess.run(
                    command + TESTS[name],
                    cwd=work,
                    env=environment,
                    capture_output=True,
                    timeout=3600,
                ).returncode
            except subprocess.TimeoutExpired:
                code = 1  # it hangs, which the tests would notice
            path.write_text(whole)
            line = getattr(node, "lineno", 0)
            text = f"{name}.py:{line}: {ast.unparse(node)}"
            row = {"module": name, "change": index, "killed": code != 0, "text": text}
            rows[name, index] = row
            with open(given.record, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            if code == 0:
                tqdm.write(f"survived: {text}")
    done = [rows[pair] for pair in drawn if pair in rows]
    print(f"{sum(row['killed'] for row in done)} of {len(done)} mutants killed")


if __name__ == "__main__":
    main()
