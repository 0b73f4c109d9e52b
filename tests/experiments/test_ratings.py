"""Human evaluation: what is drawn, how ratings are kept, the tables. All answers are made up."""

import collections
import csv
import io
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from experiments.ratings import __main__ as command
from experiments.ratings import tables as rating_tables
from experiments.ratings.items import Item, System, draw_items
from experiments.ratings.store import RatingStore, Scores

ROOT = Path(__file__).resolve().parents[2]


def write_run(folder, strategy="paml", personas=(5, 3, 2), shots=(5, 10), **config):
    """A run with generations: persona n has so many turns."""
    (folder / "eval").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"strategy": strategy, **config}))
    lines = []
    for persona, turns in enumerate(personas):
        for turn in range(1, turns + 1):
            names = [f"{s}, {k}-shot, epoch 10" for s in ("own", "other") for k in shots]
            names += ["unadapted, 0-shot, epoch 0"]
            line = {
                "persona": f"p{persona}", "statements": [f"i am p{persona}"],
                "conversation": f"c{persona}", "turn": turn, "context": "how are you",
                "utterances": [["other", "how are you"]], "gold": f"fine {turn}",
                "replies": {n: f"{folder.name} {n} p{persona} t{turn}" for n in names},
            }  # fmt: skip
            lines.append(json.dumps(line) + "\n")
    (folder / "eval" / "test.generations.jsonl").write_text("".join(lines))
    return str(folder)


def draw(workdirs, **changes):
    settings = {"split": "test", "shots": [10], "epoch": 10, "also": [], "count": 6, "seed": 0}
    return draw_items(workdirs, **settings | changes)


@pytest.fixture
def runs(tmp_path):
    return [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", "mtml", alpha=0.8),
        write_run(tmp_path / "c", personas=(4, 3, 2)),
    ]


def test_items_are_balanced_and_every_system_replies_to_the_same(runs):
    items = draw(runs, shots=[10, 5], also=["human", "unadapted", "other"])
    assert collections.Counter(item.persona for item in items) == {"p0": 2, "p1": 2, "p2": 2}
    assert len({item.persona for item in items[:3]}) == 3
    systems = list(items[0].replies)
    assert all(list(item.replies) == systems for item in items)
    assert len(systems) == len(set(systems)) == 3 * 2 * 2 + 3 + 1
    for item in items:
        where = f"{item.persona} t{item.turn}"
        assert item.replies[System("MTML 0.8", 10)] == f"b own, 10-shot, epoch 10 {where}"
        assert item.replies[System("PAML (a)", 5)] == f"a own, 5-shot, epoch 10 {where}"
        name = "PAML (c), another's dialogues"
        assert item.replies[System(name, 5)] == f"c other, 5-shot, epoch 10 {where}"
        assert item.replies[System("human", 0)] == f"fine {item.turn}"
        assert item.utterances == (("other", "how are you"),)


def test_the_draw_is_seeded_and_a_smaller_one_begins_it(runs):
    def keys(**changes):
        return [(item.persona, item.turn) for item in draw(runs, **changes)]

    assert keys() == keys()
    assert keys(count=4) == keys()[:4]
    assert len({tuple(keys(seed=seed)) for seed in range(5)}) > 1
    assert set(keys(count=9)) == {("p0", t) for t in range(1, 5)} | {
        *(("p1", t) for t in range(1, 4)), ("p2", 1), ("p2", 2)
    }  # fmt: skip
    assert len(keys(count=9)) == 9  # run c lacks the fifth turn of p0


def test_wrong_draws_get_one_sentence(runs, tmp_path):
    def refusal(workdirs=runs, **changes):
        with pytest.raises((ValueError, OSError)) as caught:
            draw(workdirs, **changes)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "lower --sample to 9" in refusal(count=10)
    assert "expected --sample of 1 or more" in refusal(count=0)
    assert "got no --from" in refusal([])
    assert "expected each folder once" in refusal([runs[0], runs[0]])
    assert "expected eval/test.generations.jsonl, got none" in refusal([str(tmp_path / "none")])
    assert "expected replies of 'own, 7-shot" in refusal(shots=[7])
    assert "change --shots, --epoch" in refusal(epoch=9)
    assert "expected any of human" in refusal(also=["humans"])
    path = Path(runs[1]) / "eval" / "test.generations.jsonl"
    text = path.read_text()
    path.write_text(text + "[1]\n")
    assert "jsonl:11: expected a line of experiments.evaluate, got '[1]'" in refusal()
    path.write_text(text.replace('"fine', '"bad'))
    assert "no turn that all have" in refusal()
    path.write_text("")
    assert "expected replies, got none" in refusal()


def items_of(personas, systems, turns=1):
    """One item a persona and turn, replies named after their place."""
    return [
        Item(
            persona, ("i sail",), f"c-{persona}", turn, (("other", "hi"),), "hi",
            {s: f"{s.name} {s.shots} {persona} {turn}" for s in systems},
        )
        for persona in personas
        for turn in range(1, turns + 1)
    ]  # fmt: skip


SYSTEMS = [System(name, 10) for name in ("A", "B", "C", "D")]


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "ratings.sqlite"
    return RatingStore.create(path, items_of(["p", "q", "r"], SYSTEMS), {"seed": 3})


def reply_of(store, text):
    with sqlite3.connect(store.path) as db:
        found = db.execute("SELECT id FROM reply WHERE text = ?", (text,)).fetchone()[0]
    db.close()
    return found


def test_each_rater_has_an_order_that_stays_and_hides_the_systems(store):
    orders = {name: store.order(store.rater(name)) for name in ("ann", "bo", "cy", "di")}
    assert store.order("ann") == orders["ann"]
    assert len({tuple(order) for order in orders.values()}) > 1
    blocks = [[set(order[i : i + 4]) for i in (0, 4, 8)] for order in orders.values()]
    assert all(block == blocks[0] for block in blocks)  # items in turn, systems shuffled
    firsts = {order[i] % 4 for order in orders.values() for i in (0, 4, 8)}
    assert len(firsts) > 2
    task = store.task("ann")
    assert not {"system", "persona", "conversation"} & set(task._fields)
    assert (task.statements, task.utterances) == (("i sail",), (("other", "hi"),))


def test_a_rater_goes_on_where_they_stopped(store):
    ann = store.rater("  Ann ")
    assert store.rater("ANN") == ann == "ann"
    order = store.order(ann)
    assert store.task(ann)[:4] == (order[0], 0, 12, 0)
    store.answer(ann, order[0], Scores(1, 0, -1))
    store.answer(ann, order[2], Scores(1, 1, 1))
    again = RatingStore(store.path)
    assert again.task(ann)[:4] == (order[1], 1, 12, 2)
    assert again.task(ann, 0).scores == (1, 0, -1)
    assert again.task(again.rater("bo")).rated == 0
    for reply in order:
        again.answer(ann, reply, Scores(0, 0, 0))
    assert again.task(ann)[:4] == (order[-1], 11, 12, 12)
    assert again.task(ann, 99).place == 11 and again.task(ann, -5).place == 0


def test_the_last_answer_counts_and_the_others_are_kept(store):
    ann, bo = store.rater("ann"), store.rater("bo")
    for scores in (Scores(1, 1, 1), Scores(0, -1, 1), Scores(-1, 0, 0)):
        store.answer(ann, 5, scores)
    store.answer(bo, 5, Scores(1, 1, 1))
    assert store.answers(ann) == {5: (-1, 0, 0)}
    assert store.history(ann, 5) == [(1, 1, 1), (0, -1, 1), (-1, 0, 0)]
    assert [(r["rater"], r["scores"]) for r in store.rows()] == [
        ("ann", (-1, 0, 0)),
        ("bo", (1, 1, 1)),
    ]


def test_wrong_answers_and_files_are_refused(store, tmp_path):
    ann = store.rater("ann")
    for wrong in ((2, 0, 0), (None, 0, 0), (0, 0), ("1", 0, 0)):
        with pytest.raises(ValueError, match="expected -1, 0 or 1"):
            store.answer(ann, 1, wrong)
    with pytest.raises(ValueError, match="no reply 99"):
        store.answer(ann, 99, Scores(0, 0, 0))
    with pytest.raises(ValueError, match="no rater 'nobody'"):
        store.answer("nobody", 1, Scores(0, 0, 0))
    for name in ("", " \n", "x" * 41, "a\u202eb", "a\x00b"):
        with pytest.raises(ValueError, match="name of 1 to 40"):
            store.rater(name)
    store.rater("robot", generated=True)
    with pytest.raises(ValueError, match="name of a program"):
        store.rater("robot")
    assert store.rows() == []
    with pytest.raises(ValueError, match="never overwritten"):
        RatingStore.create(store.path, items_of(["p"], SYSTEMS), {})
    with pytest.raises(ValueError, match="no items"):
        RatingStore.create(tmp_path / "new", [], {})
    with pytest.raises(FileNotFoundError, match="got no file"):
        RatingStore(tmp_path / "none")
    (tmp_path / "text").write_text("no database at all, but long enough to look at" * 30)
    sqlite3.connect(tmp_path / "empty").close()
    for name in ("text", "empty"):
        with pytest.raises(ValueError, match="got another file"):
            RatingStore(tmp_path / name)


WRITER = """
import sys
from experiments.ratings.store import RatingStore, Scores
store, rater, count = RatingStore(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for n in range(count):
    reply = n % 12 + 1
    store.answer(rater, reply, Scores(n % 3 - 1, n // 3 % 3 - 1, n // 9 % 3 - 1))
    print(n, flush=True)
"""


def writer(store, rater, count):
    store.rater(rater)
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store.path), rater, str(count)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_several_raters_write_at_once(store):
    """Two processes, four threads, two of the same name: every answer is there."""
    processes = [writer(store, f"process-{n}", 40) for n in range(2)]
    failures = []

    def rate(rater):
        try:
            store.rater(rater)
            for reply in range(1, 13):
                store.answer(rater, reply, Scores(reply % 3 - 1, 0, 1))
        except Exception as error:  # a thread's exceptions are lost otherwise
            failures.append(error)

    threads = [threading.Thread(target=rate, args=(f"t{n // 2 * n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        assert len(process.communicate()[0].split()) == 40
        assert process.returncode == 0
    assert not failures
    assert store.raters().keys() == {"process-0", "process-1", "t0", "t2", "t3"}
    for rater, answers in {"process-0": 40, "process-1": 40, "t0": 24, "t2": 12, "t3": 12}.items():
        assert sum(len(store.history(rater, reply)) for reply in range(1, 13)) == answers
        assert len(store.answers(rater)) == 12
    assert store.history("process-1", 4) == [(-1, 0, -1), (-1, 1, 0), (-1, -1, -1), (-1, 0, 0)]


def test_what_was_acknowledged_survives_a_kill(store):
    process = writer(store, "ann", 100_000)
    acknowledged = [int(line) for line in itertools.islice(process.stdout, 30)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout]
    process.wait()
    process.stdout.close()
    assert len(acknowledged) >= 30
    again = RatingStore(store.path)
    kept = [scores for reply in range(1, 13) for scores in again.history("ann", reply)]
    assert len(kept) - len(acknowledged) in (0, 1)  # one may have been written, unsaid
    last = acknowledged[-1]
    assert (last % 3 - 1, last // 3 % 3 - 1, last // 9 % 3 - 1) in again.history(
        "ann", last % 12 + 1
    )
    with sqlite3.connect(store.path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    again.answer("ann", 1, Scores(0, 0, 0))


def test_alpha_is_krippendorffs():
    """By hand: coincidences 2, 2, 2 and one pair (0, 1); 1 - 7 * 18 / 600; the library's own
    example, ordinal, 12 units of 4 coders."""
    pytest.importorskip("krippendorff")
    pairs = [(-1, -1), (0, 0), (0, 1), (1, 1), (1,)]
    counts = [[pair.count(v) for v in (-1, 0, 1)] for pair in pairs]
    assert rating_tables.alpha(counts) == pytest.approx(0.79, abs=1e-12)
    x = 0
    coders = [
        (1, 2, 3, 3, 2, 1, 4, 1, 2, x, x, x),
        (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, x, 3),
        (x, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, x),
        (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, x),
    ]
    counts = [[unit.count(v) for v in range(1, 6)] for unit in zip(*coders)]
    assert rating_tables.alpha(counts) == pytest.approx(0.815, abs=5e-4)
    assert np.isnan(rating_tables.alpha([]))
    assert np.isnan(rating_tables.alpha([[0, 3, 0], [0, 2, 0]]))
    assert np.isnan(rating_tables.alpha([[1, 0, 0], [0, 0, 1]]))


@pytest.fixture
def rated(tmp_path):
    """Two raters on three systems of two tables; the answers are generated."""
    pytest.importorskip("krippendorff")
    systems = [System("PAML", 10), System("PAML", 5), System("human", 0)]
    path = tmp_path / "rated.sqlite"
    store = RatingStore.create(path, items_of(["p", "q"], systems, turns=2), {"seed": 0})
    first, second = (store.rater(f"generated-{n}", generated=True) for n in (1, 2))
    wanted = {
        "PAML 10 p 1": ((1, 0, 1), (1, 1, 1)), "PAML 10 p 2": ((0, 0, 1), (1, 0, 1)),
        "PAML 10 q 1": ((-1, 1, 1), (0, 1, 1)), "PAML 10 q 2": ((-1, 1, 1), (0, -1, 1)),
        "PAML 5 p 1": ((-1, -1, 0), (-1, -1, -1)), "human 0 q 2": ((1, 1, 1), (1, 1, 1)),
    }  # fmt: skip
    for text, (one, two) in wanted.items():
        store.answer(first, reply_of(store, text), Scores(*one))
        store.answer(second, reply_of(store, text), Scores(*two))
    return store


def test_the_tables_hold_the_means(rated):
    report = rating_tables.summarise(rated, resamples=200)
    ten, five = report["tables"]
    assert (ten["title"], five["title"]) == ("Table 4 (10-shot)", "Table 5 (5-shot)")
    assert [row["system"] for row in ten["rows"]] == ["PAML", "human"]
    paml = ten["rows"][0]
    values = [paml["scores"][c]["value"] for c in rating_tables.CRITERIA]
    assert values == [1 / 8, 3 / 8, 1.0]
    assert paml["ratings"] == 8 and five["rows"][0]["ratings"] == 2
    assert five["rows"][0]["scores"]["coherence"]["value"] == -0.5
    assert five["rows"][1] == ten["rows"][1]  # the human reply stands in both
    assert ten["rows"][1]["scores"]["fluency"]["value"] == 1


def test_intervals_draw_personas_and_raters(rated):
    """Whole personas: p has 3/4, q -1/2; raters -1/4 and 1/2. All four corners are drawn."""
    score = rating_tables.summarise(rated, resamples=300)["tables"][0]["rows"][0]["scores"]
    assert (score["consistency"]["low"], score["consistency"]["high"]) == (-1.0, 1.0)
    assert (score["coherence"]["low"], score["coherence"]["high"]) == (1.0, 1.0)


def test_a_single_rater_has_intervals_over_personas_and_no_alpha(store):
    pytest.importorskip("krippendorff")
    ann = store.rater("generated-ann", generated=True)
    for persona, score in zip("pqr", (1, 0, -1)):
        store.answer(ann, reply_of(store, f"A 10 {persona} 1"), Scores(score, 1, 1))
    report = rating_tables.summarise(store, resamples=300)
    score = report["tables"][0]["rows"][0]["scores"]["consistency"]
    assert score["value"] == 0 and score["low"] < 0 < score["high"]
    assert all(np.isnan(report["alpha"][c]["value"]) for c in rating_tables.CRITERIA)
    assert any("of a single rater" in note for note in report["notes"])


def test_agreement_counts_the_replies_that_two_rated(rated):
    one = rated.rater("generated-1", generated=True)
    rated.answer(one, reply_of(rated, "human 0 p 1"), Scores(1, 1, 1))  # by one alone
    report = rating_tables.summarise(rated, resamples=50)
    counts = [[0, 0, 2], [0, 1, 1], [1, 1, 0], [1, 1, 0], [2, 0, 0], [0, 0, 2]]
    found = report["alpha"]["consistency"]
    assert found["value"] == pytest.approx(rating_tables.alpha(counts))
    assert found["units"] == 6
    assert found["low"] <= found["value"] <= found["high"]


def test_without_the_library_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "krippendorff", None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[app\]'"):
        rating_tables.alpha([[1, 1, 0]])


def test_generated_answers_are_marked_wherever_they_are_shown(rated):
    text = rating_tables.as_text(rating_tables.summarise(rated, resamples=20))
    assert text.startswith("GENERATED: a program answered as generated-1, generated-2")
    assert "over 2 personas and 2 raters" in text
    assert "generated-1: 6 of 12 (generated)" in text
    rows = list(csv.DictReader(io.StringIO(rating_tables.as_csv(rated))))
    assert len(rows) == 12 and {row["generated"] for row in rows} == {"1"}


def test_the_table_of_the_file_is_inert_in_a_spreadsheet(tmp_path):
    item = items_of(["=p"], [System("A", 10)])[0]
    item.replies[System("A", 10)] = '=cmd("x"), "y"\nz'
    store = RatingStore.create(tmp_path / "r.sqlite", [item], {})
    store.answer(store.rater("+ann"), 1, Scores(-1, 0, 1))
    (row,) = csv.DictReader(io.StringIO(rating_tables.as_csv(store)))
    assert (row["rater"], row["persona"]) == ("'+ann", "'=p")
    assert row["text"] == '\'=cmd("x"), "y"\nz'
    assert [row[c] for c in rating_tables.CRITERIA] == ["-1", "0", "1"]


def test_the_command_draws_and_reports(runs, tmp_path, capsys):
    pytest.importorskip("krippendorff")
    given = {
        "sample": 4, "from": runs, "output": str(tmp_path / "out" / "r.sqlite"),
        "shots": ["5", "10"], "epoch": 10, "split": "test", "also": ["human"], "seed": 0, "report": False, "csv": None,
        "resamples": 20,
    }  # fmt: skip
    command.ratings(given)
    assert "4 turns of 3 personas, 28 replies of 7 systems" in capsys.readouterr().out
    with pytest.raises(ValueError, match="never overwritten"):
        command.ratings(given)
    store = RatingStore(given["output"])
    assert store.settings()["shots"] == [10, 5]
    robot = store.rater("generated-1", generated=True)
    for reply in store.order(robot):
        store.answer(robot, reply, Scores(1, 0, -1))
    table = tmp_path / "r.csv"
    command.ratings({**given, "sample": None, "report": True, "csv": str(table)})
    out = capsys.readouterr().out
    assert "Table 4 (10-shot)" in out and "28 ratings in" in out
    assert "1.00 [1.00, 1.00]" in out and "-1.00 [-1.00, -1.00]" in out
    assert len(table.read_text().splitlines()) == 29
    with pytest.raises(ValueError, match="got nothing to do"):
        command.ratings({**given, "sample": None})
    for wrong in (["ten"], ["0"], []):
        with pytest.raises(ValueError, match="expected whole numbers"):
            command.ratings({**given, "shots": wrong})
