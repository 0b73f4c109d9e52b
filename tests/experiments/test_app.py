"""Test the page: what it shows of hostile text, and in a browser from the first click to the last.

The tests with a browser run by `pytest -m browser` and need `pip install -e '.[app,browser]'`
and Chromium.
"""

import contextlib
import dataclasses
import html
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.app import html as app_html
from experiments.ratings.items import Item, System
from experiments.ratings.store import RatingStore, Scores, Task

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = (
    "<img src=x onerror='window.hacked=1'><script>window.hacked=2</script>"
    "${window.hacked=3}{{constructor.constructor('window.hacked=4')()}}`\"'&amp;\x00\x1b\u202e"
)


def test_nothing_that_somebody_wrote_is_markup():
    text = app_html.escape(HOSTILE)
    assert not set("<>{}$`\"'\x00\x1b\u202e") & set(text)
    assert html.unescape(text).startswith(HOSTILE[:-3])
    assert text.endswith("&amp;amp;" + 3 * "\ufffd")
    assert app_html.escape("a\r\nb\tc é 😀") == "a\nb\tc é 😀"
    shown = Task(1, 0, 2, 1, (HOSTILE,), (("self", HOSTILE),), HOSTILE, HOSTILE, None)
    parts = [
        app_html.task(shown),
        app_html.task(shown._replace(utterances=())),
        app_html.progress(HOSTILE, shown),
        app_html.message(HOSTILE, wrong=True),
        app_html.chats(([HOSTILE], [HOSTILE]), HOSTILE, waiting=True),
        app_html.beliefs(HOSTILE, HOSTILE),
        app_html.results(
            {
                "tables": [{"title": HOSTILE, "rows": [
                    {"system": HOSTILE, "ratings": 1, "scores": dict.fromkeys(
                        ("consistency", "fluency", "coherence"),
                        {"value": 1.0, "low": 0.0, "high": 1.0})}]}],
                "alpha": {}, "notes": [HOSTILE], "replies": 1,
                "raters": [{"name": HOSTILE, "generated": False, "ratings": 1}],
            }
        ),
    ]  # fmt: skip
    for part in parts:
        assert "hacked" in part
        assert not re.search(r"<(img|script)|[{}$`\x00\x1b\u202e]", part), part


def test_long_dialogues_are_folded_and_empty_ones_said():
    said = [("other" if n % 2 else "self", f"line {n}") for n in range(11)]
    task = Task(1, 0, 2, 0, (), tuple(said), "", "", None)
    shown = app_html.task(task)
    assert shown.index("3 earlier") < shown.index("line 2") < shown.index("</details>")
    assert shown.index("</details>") < shown.index("line 3") < shown.index("line 10")
    assert "(an empty reply)" in shown and "(none are known)" in shown
    assert "opens the dialogue" in app_html.task(task._replace(utterances=()))
    assert "… the end" in app_html.task(task._replace(utterances=(), context="the end"))


def test_without_the_extra_one_sentence_says_how_to_get_it(monkeypatch, tmp_path):
    from experiments.app import __main__ as app

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[app\]'"):
        app.make_app(tmp_path, tmp_path / "r.sqlite", host="127.0.0.1")


def test_an_address_that_is_taken_is_told():
    from experiments.app import __main__ as app

    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(ValueError, match="choose another --host or --port"):
            app._listen("127.0.0.1", taken.getsockname()[1])
    assert [app._is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "x.y")] == [
        True, True, True, False, False
    ]  # fmt: skip


# What the buttons of the tab do, without a browser.
HANDLERS = """
import json, pathlib, sys
import gradio
from experiments.app.chat import chat_tab
with gradio.Blocks(analytics_enabled=False) as page:
    chat_tab(pathlib.Path(sys.argv[1]), page)
handlers = {handler.name: handler.fn for handler in page.fns.values()}
for name in sys.argv[3:]:
    key, status, *_ = handlers["take_text"](None, sys.argv[2])
    key, learned, *_ = handlers["learn"](key, name, "best", "ann", "1", "")
    *_, (key, chats, _) = handlers["reply"](key, "hi")
    key, beliefs = handlers["believe"](key)
    print(json.dumps([status, learned, chats, beliefs]))
"""


@pytest.mark.long
def test_personas_are_reconstructed_by_runs_that_trained_it(save_tiny_run, tmp_path):
    pytest.importorskip("gradio")
    runs = {"multitask": True, "std": False}
    for strategy in runs:
        save_tiny_run(tmp_path / strategy, strategy=strategy, distinct_start=True)
    # In a process of its own, because Gradio leaves an event loop open.
    done = subprocess.run(
        [sys.executable, "-c", HANDLERS, str(tmp_path), dialogues("ann"), *runs],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False",
             "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for reconstructs, line in zip(runs.values(), done.stdout.splitlines(), strict=True):
        status, learned, chats, beliefs = json.loads(line)
        assert "3 conversations" in status and "ann: adapted to 2 dialogues" in learned
        assert chats.count("<li") == 4
        assert ("never learned to reconstruct" in beliefs) != reconstructs
        assert (beliefs.count("<h3>") == 2) == reconstructs


def chromium():
    """The program, or None."""
    return next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


def missing():
    for package in ("gradio", "krippendorff", "playwright"):
        if importlib.util.find_spec(package) is None:
            return f"there is no {package}: pip install -e '.[app,browser]'"
    return "" if chromium() else "there is no Chromium on the PATH"


in_browser = [pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing())]


def browser_test(function):
    for mark in in_browser:
        function = mark(function)
    return function


class Server:
    """The page in a process of its own."""

    def __init__(self, folder):
        self.folder, self.ratings = folder, folder / "ratings.sqlite"
        self.uploads = folder / "tmp"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.start()

    def start(self):
        self._log = open(self.folder / "log", "ab")
        self.uploads.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "experiments.app", f"--port={self.port}", "--cpu_devices=1",
                f"--runs={self.folder / 'runs'}", f"--ratings={self.ratings}",
                "--compilation_cache=",
            ],
            cwd=ROOT, env=os.environ | {"TMPDIR": str(self.uploads)}, text=True,
            stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip
        assert self.process.stdout.readline() == self.url[:-1] + "\n", self.log()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if self.request("GET", "/")[0] == 200:
                    return
            time.sleep(0.1)
        raise TimeoutError(self.log())

    def stop(self, number):
        """Returns the exit status."""
        os.kill(self.process.pid, number)
        status = self.process.wait(timeout=30)
        self.process.stdout.close()
        self._log.close()
        return status

    def log(self):
        return (self.folder / "log").read_text()

    def request(self, method, path, body=None, **headers):
        """(status, headers, text)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    save_model(folder / "runs" / "tiny")
    systems = [System(name, 10) for name in ("A", "B")]
    items = [
        Item(
            f"p{n}", ("i sail .", HOSTILE), f"c{n}", 1, (("other", f"hello {n} {HOSTILE}"),), "",
            {system: f"reply {n} of {system.name} {HOSTILE}" for system in systems},
        )
        for n in range(6)
    ]  # fmt: skip
    RatingStore.create(folder / "ratings.sqlite", items, {"seed": 0})
    server = Server(folder)
    yield server
    server.stop(signal.SIGKILL)


def save_model(workdir):
    """A run of a tiny model that learnt nothing."""
    from mtml_jax.config import ModelConfig, TileShape, TrainConfig
    from mtml_jax.data.prepare import prepare
    from mtml_jax.runs.checkpoint import Checkpoints
    from mtml_jax.runs.folder import save_run
    from mtml_jax.train import resume

    config = TrainConfig(
        model=ModelConfig(
            encoder_layers=1, decoder_layers=1, heads=2, width=6, feed_forward=10,
            activation="relu",
        ),
        shape=TileShape(rows=2, context=31, response=41, persona=61),
        strategy="mtml", meta_batch=2, inner_lr=0.3,
    )  # fmt: skip
    data = prepare(config, "demo")
    settings = {**dataclasses.asdict(config), "data": "demo", "preset": "tiny"}
    save_run(workdir, settings, data.vocabulary.to_text())
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(3, resume.initial_state(config, data), {}, best=True)
        checkpoints.wait()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, server):
    """() -> a page of a fresh profile; afterwards: no errors, nothing executed, nobody asked."""
    pages, contexts, trouble = [], [], []

    def open_page():
        contexts.append(browser.new_context(viewport={"width": 1000, "height": 900}))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: trouble.append(dialog.message))
        page.on(
            "request",
            lambda request: (
                request.url.startswith((server.url, "data:", "blob:"))
                or trouble.append(request.url)
            ),
        )
        page.goto(server.url)
        page.wait_for_selector("#run input")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        assert page.evaluate("window.hacked") is None
        assert page.locator("img[src=x]").count() == 0
    for context in contexts:
        context.close()
    assert not trouble


def tab(page, name):
    page.get_by_role("tab", name=name).click()


def begin(page, name):
    tab(page, "Rate")
    page.fill("#rater input, #rater textarea", name)
    page.click("#start")
    page.wait_for_selector(".task")


def rate(page, keys):
    """By keys alone; back when the next reply is there."""
    place = page.get_attribute(".task", "data-place")
    for key in keys:
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    return place


def wait_place(page, place):
    page.wait_for_selector(f'.task[data-place="{place}"]')


@browser_test
def test_ten_replies_are_rated_over_a_reload_a_kill_and_beside_another(visit, server):
    ann, bo = visit(), visit()
    begin(ann, "Ann")
    begin(bo, HOSTILE[:35])
    assert ann.inner_text("#rate-progress").startswith("0 of 12")
    assert "reflects the persona" in ann.inner_text("#consistency")
    assert "reply 0 of" in ann.inner_text(".reply") and "<img" in ann.inner_text(".reply")
    keys = ["123", "321", "222", "333", "111"]
    for n, some in enumerate(keys):
        rate(ann, some)
        wait_place(ann, n + 1)
        rate(bo, some)
        wait_place(bo, n + 1)
    ann.keyboard.press("3")  # chosen, not saved
    ann.reload()
    tab(ann, "Rate")
    wait_place(ann, 5)
    assert ann.inner_text("#rate-progress").startswith("5 of 12 rated by ann")
    server.stop(signal.SIGKILL)
    server.start()
    ann.reload()
    tab(ann, "Rate")
    wait_place(ann, 5)
    for n in range(5, 10):
        ann.click("#consistency label >> nth=0")
        ann.click("#fluency label >> nth=1")
        ann.click("#coherence label >> nth=2")
        ann.click("#save")
        wait_place(ann, n + 1)
    store = RatingStore(server.ratings)
    order = store.order("ann")
    wanted = [Scores(*(int(key) - 2 for key in some)) for some in keys] + 5 * [Scores(-1, 0, 1)]
    assert store.answers("ann") == dict(zip(order, wanted))
    tab(ann, "Results")
    ann.wait_for_selector("#alpha")
    shown = ann.inner_text("#results")
    assert "Human evaluation" not in shown and "TABLE 4 (10-SHOT)" in shown.upper()
    assert "ann: 10 of 12" in shown and "5 of 12" in shown
    with ann.expect_download() as download:
        ann.click(".download")
    assert len(Path(download.value.path()).read_text().splitlines()) >= 16


@browser_test
def test_an_answer_can_be_changed_and_an_unfinished_one_is_not_taken(visit, server):
    page = visit()
    begin(page, "cy")
    rate(page, "11")  # Enter marks what is missing
    page.keyboard.press("1")
    page.click("#save")
    wait_place(page, 1)
    page.click("#save")
    page.wait_for_selector("#rate-status .wrong")
    assert page.inner_text("#rate-status") == "choose consistency, fluency, coherence first"
    page.keyboard.press("Backspace")
    wait_place(page, 0)
    page.wait_for_selector("#coherence input:checked")
    assert "you have rated this one" in page.inner_text("#rate-progress")
    page.keyboard.press("ArrowDown")
    rate(page, "3")
    wait_place(page, 1)
    store = RatingStore(server.ratings)
    assert store.history("cy", store.order("cy")[0]) == [(-1, -1, -1), (-1, 1, -1)]
    page.click("#leave")
    page.wait_for_selector("#rater")
    page.fill("#rater input, #rater textarea", "x\x1b")
    page.click("#start")
    page.wait_for_selector("#rate-status .wrong")
    page.reload()
    tab(page, "Rate")
    page.wait_for_selector("#start")


def dialogues(speaker, count=3):
    lines = []
    for n in range(count):
        said = [("friend", f"hi , where do you live ? {n}"), (speaker, f"i live in rome {n}")] * 2
        utterances = [{"speaker": who, "text": f"{text} {HOSTILE}"} for who, text in said]
        lines.append(json.dumps({"conversation": n, "utterances": utterances}))
    return "\n".join(lines)


@browser_test
def test_a_speaker_is_learnt_and_answers_beside_the_initial_model(visit):
    page = visit()
    name = "ann <img src=x onerror='window.hacked=5'>"
    page.fill("#pasted textarea", dialogues(name))
    page.click("#read")
    page.wait_for_selector("#adapt")
    assert page.inner_text("#chat-status") == "pasted text: 3 conversations, 3 read"
    page.click("#speaker input")
    page.get_by_role("option", name=name).click()
    page.click("#adapt")
    page.wait_for_selector("#learnt .progress-text, #learnt .progress-level", timeout=60_000)
    page.wait_for_selector("#learnt .message", timeout=120_000)
    learnt = page.inner_text("#learnt")
    assert learnt.startswith(f"{name}: adapted to 2 dialogues, 4 turns, 10 epochs at 0.3")
    before, after = map(float, re.findall(r"([\d.]+) (?:before|after)", learnt))
    assert after < before
    for n in range(2):
        text = f"{n} {HOSTILE}"
        page.fill("#message textarea, #message input", text)
        page.click("#send")
        page.wait_for_function(
            "n => document.querySelectorAll('#chats li.self').length == 2 * n + 2"
            " && !document.querySelector('#chats').innerText.includes('…')",
            arg=n,
            timeout=120_000,
        )
        assert page.locator("#chats li.other").count() == 2 * n + 2
    assert "<img src=x" in page.inner_text("#chats")
    page.click("#ask")
    page.wait_for_selector("#belief .message", timeout=120_000)
    assert "--distinct_start" in page.inner_text("#belief")
    page.click("#over")
    page.wait_for_function("() => !document.querySelector('#chats li')")
    page.fill("#rate input, #rate textarea", "fast")
    page.click("#adapt")
    page.wait_for_selector("#learnt .wrong")
    assert page.inner_text("#learnt") == "expected an inner rate such as 0.1, got 'fast'"


@browser_test
def test_hostile_files_get_a_clear_message_and_are_not_kept(visit, server, tmp_path):
    page = visit()

    def answer(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        shown = page.locator("#chat-status .wrong")
        before = shown.inner_text() if shown.count() else ""
        page.set_input_files("#file input[type=file]", str(path))
        page.wait_for_function(
            "before => { const now = document.querySelector('#chat-status .wrong');"
            " return now && now.innerText != before; }",
            arg=before,
        )
        return shown.inner_text()

    name = "<img src=x onerror=window.hacked=6>.txt"
    assert "got a file that begins with" in answer(name, HOSTILE.encode())
    line = json.dumps({"conversation": 1, "utterances": [{"speaker": HOSTILE, "text": 3}]})
    found = answer("lines.jsonl", line.encode())
    assert found.startswith("lines.jsonl:1: expected") and "/" not in found.split(":")[0]
    assert "a zip archive" in answer("chat.zip", b"PK\x03\x04" + bytes(50))
    assert "begins with" in answer("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    assert "jsonl:1" in answer("deep.jsonl", b'{"a":' + b"[" * 100_000)
    big = tmp_path / "<img src=x onerror=window.hacked=7>.txt"
    big.write_bytes(b"x" * (21 * 2**20))
    page.set_input_files("#file input[type=file]", str(big))
    page.get_by_text("exceed the maximum allowed size of 20").wait_for()
    page.fill("#pasted textarea", "  ")
    page.click("#read")
    page.get_by_text("expected dialogues to read, got none").wait_for()
    page.evaluate(
        "() => { const box = document.querySelector('#pasted textarea');"
        " box.value = 'x'.repeat(2000001); box.dispatchEvent(new Event('input')); }"
    )
    page.click("#read")
    page.get_by_text("expected 2,000,000 characters at most").wait_for()
    page.reload()
    page.wait_for_selector("#run input")
    good = tmp_path / "good.jsonl"
    good.write_text(dialogues("ann"))
    page.set_input_files("#file input[type=file]", str(good))
    page.get_by_text("good.jsonl: 3 conversations, 3 read").wait_for()
    chat = tmp_path / "WhatsApp Chat.txt"
    said = [f"12/31/23, 10:{n:02} - {'Ann' if n % 2 else 'Bo'}: in rome {n}" for n in range(10)]
    chat.write_text("\n".join(said))
    page.set_input_files("#file input[type=file]", str(chat))
    page.get_by_text("WhatsApp Chat.txt: 10 messages, 10 read").wait_for()
    kept = [path for path in server.uploads.rglob("*") if path.is_file()]
    assert not any(b"rome" in path.read_bytes() or b"hacked" in path.read_bytes() for path in kept)


@browser_test
def test_results_can_be_kept_from_the_raters(tmp_path):
    program = (
        "import pathlib, sys; from experiments.app import __main__ as app; folder = pathlib.Path(sys.argv[1])\n"
        "for shown in (True, False):\n"
        "    made = app.make_app(folder, folder / 'r', host='127.0.0.1', results=shown)\n"
        "    print('/ratings.csv' in [getattr(r, 'path', '') for r in made.routes])"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert out.split() == ["True", "False"]


@browser_test
def test_an_end_in_good_order_leaves_no_uploads(browser, server):
    page = browser.new_page()  # what is open does not hold it up
    page.goto(server.url)
    page.wait_for_selector("#run input")
    before = set(server.uploads.iterdir())
    assert server.stop(signal.SIGTERM) == 143
    assert "no rating that was saved is lost" in server.log()
    assert "Traceback" not in server.log()
    page.close()
    (gone,) = before - set(server.uploads.iterdir())
    assert gone.name.startswith("mtml_jax-")
    server.start()


@browser_test
def test_runs_are_found_and_the_oldest_visits_forgotten(tmp_path):
    from experiments.app.chat import Visits, find_models, find_runs
    from experiments.flags import STARTS, shipped_starts

    for name in ("b", "a/x", "a/y/z/deep", ".hidden", "a/x/checkpoints/inner"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        for file in ("config.json", "vocabulary.txt"):
            (tmp_path / name / file).touch()
    (tmp_path / "plain").mkdir()
    assert find_runs(tmp_path) == ["a/x", "b"]
    assert find_runs(tmp_path / "b") == ["."]
    assert find_runs(tmp_path / "none") == []
    starts = {f"start: {name}": STARTS / name for name in shipped_starts()}
    assert starts and find_models(tmp_path / "none") == starts
    assert find_models(tmp_path) == {"a/x": tmp_path / "a/x", "b": tmp_path / "b"} | starts
    visits = Visits()
    first, held = visits.of(None)
    assert visits.of(first) == (first, held)
    assert visits.of("guessed")[0] != "guessed"
    for _ in range(8):
        visits.of(None)
    assert visits.of(first)[1] is not held


@browser_test
def test_the_server_is_for_this_machine_and_takes_so_much(server):
    status, headers, _ = server.request("GET", "/")
    assert status == 200 and "default-src 'self'" in headers["content-security-policy"]
    assert server.request("GET", "/", Host="elsewhere.example")[0] == 400
    status, _, text = server.request(
        "POST", "/gradio_api/upload", b"", **{"Content-Length": str(2**30)}
    )
    assert (status, text) == (413, "more than 20 MB are not taken")
    chunked = {"Transfer-Encoding": "chunked"}
    status, _, text = server.request("POST", "/gradio_api/queue/join", **chunked)
    assert status == 411
    for path in ("/ratings.sqlite", "/gradio_api/file=/etc/passwd", "/docs"):
        assert server.request("GET", path)[0] in (403, 404), path
    assert not re.search(r"Traceback|https?://(?!127)", server.log())
