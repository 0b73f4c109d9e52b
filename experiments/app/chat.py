"""Build the tab that adapts a model to a speaker and shows its replies next to the initial ones."""

import collections
import functools
import os
import pathlib
import secrets
import tempfile
import threading

import gradio as gr

from experiments.app import html as app_html
from experiments.flags import STARTS, shipped_starts
from mtml_jax.data.exports import choose_speaker, read_chat
from mtml_jax.data.records import Dialogue
from mtml_jax.inference.adapt import Adapted, adapt_to_dialogues
from mtml_jax.inference.responder import Responder, believed_persona, persona_caveat, unknown_share
from mtml_jax.runs.trained import Trained, load_trained

_START = "start: "
_DEPTH = 3  # levels below --runs that are searched for runs
_VISITORS = 8  # visits whose adapted parameters are held at once; the oldest are dropped
_PASTED = 2_000_000  # characters
_MESSAGE = 2_000  # characters
_EXCHANGES = 100  # of a chat
_EPOCHS = 50
_EXAMPLE = '{"conversation": "c1", "utterances": [{"speaker": "ann", "text": "Hi!"}, …]}'


class Visit:
    """The dialogues, the adaptation and the chat of one open page.

    It needs no lock: handlers that run a model wait in the queue, and each of the others sets
    one attribute.
    """

    def __init__(self):
        self.dialogues: list[Dialogue] = []
        self.model: Trained | None = None
        self.adapted: Adapted | None = None
        self.speaker = ""
        self.said: tuple[list[str], list[str]] = ([], [])  # to the initial, to the adapted model


class Visits:
    """The latest visits, by a key that only their page knows."""

    def __init__(self):
        self._lock = threading.Lock()
        self._visits: collections.OrderedDict[str, Visit] = collections.OrderedDict()

    def of(self, key: str | None) -> tuple[str, Visit]:
        """Returns the key and its visit; both are new if the visit no longer exists."""
        with self._lock:
            if key not in self._visits:
                key = secrets.token_hex(16)
                self._visits[key] = Visit()
            self._visits.move_to_end(key)
            while len(self._visits) > _VISITORS:
                self._visits.popitem(last=False)
            return key, self._visits[key]


def find_models(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the training runs of a folder and the starts that come with the project, by name."""
    runs = {name: folder / name for name in find_runs(folder)}
    return runs | {f"{_START}{name}": STARTS / name for name in shipped_starts()}


def find_runs(folder: pathlib.Path) -> list[str]:
    """Returns the training runs in a folder and a few levels below, as sorted relative paths."""
    found = []
    for path, folders, files in os.walk(folder):
        depth = len(pathlib.Path(path).relative_to(folder).parts)
        if "config.json" in files and "checkpoints" in folders:
            found.append(os.path.relpath(path, folder))  # "." for the folder itself
            folders.clear()
        if depth >= _DEPTH:
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(".")]
    return sorted(found)


def chat_tab(runs: pathlib.Path, page: gr.Blocks) -> None:
    """Adds the tab's contents to the page that is being built."""
    visits = Visits()
    key = gr.State(None)
    with gr.Row():
        run = gr.Dropdown([], label="Trained (a run of experiments.train, or a start that comes with the project)", elem_id="run", scale=3)
        checkpoint = gr.Radio(["best", "latest"], value="best", label="Checkpoint", scale=1)
    gr.HTML(app_html.PRIVACY)
    with gr.Row(elem_id="give"):
        file = gr.File(label="Dialogues, 20 MB at most", elem_id="file", height=130)
        with gr.Column():
            pasted = gr.Textbox(
                label="or paste them", lines=3, max_lines=6, placeholder=_EXAMPLE, elem_id="pasted"
            )
            read = gr.Button("Read the pasted text", elem_id="read", size="md")
    status = gr.HTML(elem_id="chat-status")
    with gr.Row(visible=False, elem_classes="low") as learning:
        speaker = gr.Dropdown([], label="Speaker to learn", elem_id="speaker", scale=2)
        epochs = gr.Textbox(label="Epochs", placeholder="the default", elem_id="epochs", scale=1)
        rate = gr.Textbox(label="Inner rate", placeholder="the run's", elem_id="rate", scale=1)
        adapt = gr.Button("Adapt", variant="primary", elem_id="adapt", scale=1)
    learned = gr.HTML(elem_id="learnt", min_height=60)
    with gr.Column(visible=False) as chatting:
        shown = gr.HTML(elem_id="chats")
        with gr.Row(elem_classes="low"):
            text = gr.Textbox(label="Your message", elem_id="message", scale=4, max_length=_MESSAGE)
            send = gr.Button("Send", variant="primary", elem_id="send", scale=1)
        with gr.Row():
            over = gr.Button("Start the chat over", elem_id="over", size="md")
            ask = gr.Button("Reconstruct the persona", elem_id="ask", size="md")
        belief = gr.HTML(elem_id="belief")

    def take(key, path, name):
        """Reads dialogues; messages show the file's name instead of its path here."""
        key, visit = visits.of(key)
        try:
            dialogues, report = read_chat(path)
            choose_speaker(dialogues, dialogues[0].speaker)
        except (ValueError, OSError, RecursionError) as error:
            note = str(error).replace(str(path), name)
            return key, app_html.message(note, wrong=True), gr.update(visible=False), gr.skip()
        visit.dialogues = dialogues
        counts = collections.Counter(d.speaker for d in dialogues).most_common(500)
        choices = [(f"{who} ({count} dialogues)", who) for who, count in counts]
        note = " ".join(report.sentences()).replace(str(path), name)
        update = gr.update(choices=choices, value=counts[0][0])
        return key, app_html.message(note), gr.update(visible=True), update

    def take_file(key, path):
        if path is None:
            return key, gr.skip(), gr.skip(), gr.skip(), None
        try:
            return *take(key, path, pathlib.Path(path).name), None
        finally:
            pathlib.Path(path).unlink(missing_ok=True)

    def take_text(key, pasted):
        if len(pasted) > _PASTED:
            note = f"expected {_PASTED:,} characters at most, got {len(pasted):,}; upload a file"
            return key, app_html.message(note, wrong=True), gr.skip(), gr.skip()
        if not pasted.strip():
            note = "expected dialogues to read, got none; paste or upload some first"
            return key, app_html.message(note, wrong=True), gr.skip(), gr.skip()
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="replace") as copy:
            copy.write(pasted)
            copy.flush()
            return take(key, copy.name, "pasted text")

    def learn(key, run, checkpoint, speaker, epochs, rate, progress=gr.Progress()):
        key, visit = visits.of(key)
        wrong = functools.partial(app_html.message, wrong=True)
        try:
            if not visit.dialogues:
                raise ValueError("expected dialogues to adapt to, got none; read them again")
            if run not in (models := find_models(runs)):
                raise ValueError("expected a model of the list, got none; choose one")
            number = _epochs(epochs)
            progress(0, desc="reading the model")
            model = _model(str(models[run]), checkpoint)
            mine, _ = choose_speaker(visit.dialogues, speaker)

            def report(done, total):
                what = f"epoch {done} of {total}" if done else "compiling, up to a minute"
                progress((done, total), desc=what, unit="epochs")

            visit.adapted = adapt_to_dialogues(
                model, mine, inner_lr=_rate(rate), epochs=number, progress=report
            )
            visit.model, visit.speaker, visit.said = model, speaker, ([], [])
            note = _summary(visit, mine)
        except (ValueError, OSError) as error:
            note = str(error).replace("--inner_lr=", "an inner rate of ")
            return key, wrong(note.replace("--inner_lr", "inner rate")), *[gr.skip()] * 3
        return key, note, gr.update(visible=True), _chats(visit), ""

    def reply(key, text):
        key, visit = visits.of(key)
        if visit.adapted is None:
            yield key, app_html.message("adapt a model first", wrong=True), gr.skip()
            return
        chat = visit.said  # starting over replaces it
        if len(chat[0]) >= 2 * _EXCHANGES:
            note = f"expected fewer than {_EXCHANGES} exchanges, got {_EXCHANGES}; start the chat over"
            yield key, app_html.message(note, wrong=True) + _chats(visit), gr.skip()
            return
        if not text.strip():
            yield key, _chats(visit), gr.skip()
            return
        for said in chat:
            said.append(text[:_MESSAGE])
        yield key, _chats(visit, waiting=True), ""
        responder = Responder(visit.model)
        for said, params in zip(chat, (visit.model.params, visit.adapted.params)):
            said.append(responder.reply(params, said))
            yield key, _chats(visit, waiting=True), gr.skip()

    def start_over(key):
        key, visit = visits.of(key)
        visit.said = ([], [])
        return key, _chats(visit), ""

    def believe(key):
        key, visit = visits.of(key)
        if visit.adapted is None:
            return key, app_html.message("adapt a model first", wrong=True)
        caveat = persona_caveat(visit.model)
        params = visit.model.params, visit.adapted.params
        try:
            texts = [
                # As in training, the other side has the last word.
                believed_persona(visit.model, some, said[: len(said) - 1 + len(said) % 2])
                for some, said in zip(params, visit.said)
            ]
        except ValueError:  # the caveat gives the reason
            return key, app_html.message(caveat)
        return key, app_html.beliefs(*texts) + app_html.message(caveat)

    def look():
        """Lists the current runs, at every load of the page."""
        note = ""
        if not find_runs(runs):
            note = app_html.message(
                f"{runs}: expected a folder with runs of python -m experiments.train, got no runs; "
                "name it with --runs", wrong=True
            )  # fmt: skip
        found = list(find_models(runs))
        shown = [(runs.resolve().name if name == "." else name, name) for name in found]
        return gr.update(choices=shown, value=found[0] if found else None), note

    private = {"api_visibility": "private"}
    busy = private | {"concurrency_limit": 1, "concurrency_id": "model"}
    taken = [key, status, learning, speaker]
    file.upload(take_file, [key, file], [*taken, file], **private)
    read.click(take_text, [key, pasted], taken, **private)
    chosen = [key, run, checkpoint, speaker, epochs, rate]
    results = [key, learned, chatting, shown, belief]
    adapt.click(learn, chosen, results, show_progress_on=learned, **busy)
    hidden = {"show_progress": "hidden"}
    gr.on([send.click, text.submit], reply, [key, text], [key, shown, text], **hidden, **busy)
    over.click(start_over, key, [key, shown, belief], **hidden, **private)
    ask.click(believe, key, [key, belief], **busy)
    page.load(look, None, [run, status], **hidden, **private)


def _epochs(text: str) -> int | None:
    if not text.strip():
        return None
    if not text.strip().isdecimal() or not 1 <= int(text) <= _EPOCHS:
        raise ValueError(f"expected 1 to {_EPOCHS} epochs, got {text[:40]!r}")
    return int(text)


def _rate(text: str) -> float | None:
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise ValueError(f"expected an inner rate such as 0.1, got {text[:40]!r}") from None


def _model(workdir: str, checkpoint: str) -> Trained:
    if checkpoint not in ("best", "latest"):
        raise ValueError(f"expected the checkpoint best or latest, got {checkpoint!r}")
    folder = pathlib.Path(workdir) / "checkpoints"
    changed = folder.stat().st_mtime_ns if folder.is_dir() else 0
    return _cached_model(workdir, checkpoint, changed)


@functools.lru_cache(maxsize=2)
def _cached_model(workdir, checkpoint, changed):
    return load_trained(workdir, checkpoint)


def _summary(visit: Visit, mine: list[Dialogue]) -> str:
    """Returns what was adapted to, and how well, in a sentence."""
    adapted = visit.adapted
    text = (
        f"{visit.speaker}: adapted to {adapted.dialogues} dialogues, {adapted.turns} turns, "
        f"{adapted.epochs} epochs at {adapted.inner_lr:g}"
    )
    if adapted.ppl_before is not None:
        text += (
            f"; perplexity of the last dialogue, which was held out: {adapted.ppl_before:.2f} "
            f"before, {adapted.ppl_after:.2f} after"
        )
    unknown = unknown_share(visit.model, mine)
    if unknown > 0.1:
        text += f"; the model does not know {unknown:.0%} of the words"
    return app_html.message(text)


def _chats(visit: Visit, *, waiting: bool = False) -> str:
    return app_html.chats(visit.said, visit.speaker, waiting=waiting)
