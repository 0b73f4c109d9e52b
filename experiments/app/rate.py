"""Build the tab in which people rate replies without knowing which system wrote them."""

import functools
import pathlib

import gradio as gr

from experiments.app import html as app_html
from experiments.ratings.store import CRITERIA, RatingStore, Scores

_PLACES = ("−1", "0", "1")
_NOBODY = {"rater": "", "reply": None, "place": None}


def keep_rater() -> gr.BrowserState:
    """Keeps the rater and their place in the browser, across reloads and restarts of the server.

    It must be created outside the tabs: contents of a tab are read when it is first opened.
    """
    return gr.BrowserState(dict(_NOBODY), storage_key="mtml_rating", secret="unused")


def rate_tab(path: pathlib.Path, page: gr.Blocks, kept: gr.BrowserState) -> None:
    """Adds the tab's contents to the page that is being built."""
    status = gr.HTML(elem_id="rate-status")
    with gr.Row(visible=True) as asking:
        name = gr.Textbox(label="Your name", max_length=40, scale=3, elem_id="rater")
        start = gr.Button("Start or go on", variant="primary", scale=1, elem_id="start")
    with gr.Column(visible=False) as rating:
        progress = gr.HTML(elem_id="rate-progress")
        gr.HTML(app_html.criteria())
        shown = gr.HTML(elem_id="task")
        with gr.Column(elem_id="scores"):
            radios = [
                gr.Radio(
                    [(f"{p} {text}", v) for p, text, v in zip(_PLACES, texts, (-1, 0, 1))],
                    label=f"{criterion.capitalize()}: {what}",
                    elem_id=criterion,
                )
                for criterion, (what, texts, _) in app_html.DEFINITIONS.items()
            ]
        with gr.Row():
            back = gr.Button("Back", elem_id="back", min_width=80, size="md")
            save = gr.Button(
                "Save and next", variant="primary", elem_id="save", min_width=120, size="md"
            )
            onward = gr.Button("To the first unrated", elem_id="onward", min_width=120, size="md")
            leave = gr.Button("Another name", elem_id="leave", min_width=80, size="md")
    outputs = [kept, status, asking, rating, progress, shown, *radios]

    def view(rater, place=None, note=""):
        found = RatingStore(path).task(rater, place)
        scores = found.scores or (None,) * len(CRITERIA)
        if found.rated == found.count:
            note = note or "All replies are rated. Thank you! You can still go back and change any."
        return [
            {"rater": rater, "reply": found.reply, "place": found.place},
            app_html.message(note),
            gr.update(visible=False),
            gr.update(visible=True),
            app_html.progress(rater, found),
            app_html.task(found),
            *(gr.update(value=score) for score in scores),
        ]

    def ask(note="", *, wrong=True):
        rows = [gr.update(visible=True), gr.update(visible=False), "", ""]
        rows += [gr.update(value=None)] * len(CRITERIA)
        return [dict(_NOBODY), app_html.message(note, wrong=wrong), *rows]

    def telling(handler):
        """Shows errors on the page and leaves all choices as they are."""

        @functools.wraps(handler)
        def handle(*given):
            try:
                return handler(*given)
            except (ValueError, OSError) as error:
                unchanged = [gr.skip() for _ in outputs]
                unchanged[1] = app_html.message(str(error), wrong=True)
                return unchanged

        return handle

    @telling
    def begin(name):
        store = RatingStore(path)
        return view(store.rater(name))

    @telling
    def load(state):
        """Continues for the name that the browser kept, at every load of the page."""
        store = RatingStore(path)
        if not state or state.get("rater") not in store.raters():
            return ask()
        return view(store.rater(state["rater"]))

    @telling
    def answer(state, *scores):
        store = RatingStore(path)
        if None in scores:
            missing = [name for name, score in zip(CRITERIA, scores) if score is None]
            raise ValueError(f"choose {', '.join(missing)} first")
        store.answer(state["rater"], state["reply"], Scores(*scores))
        following = state["place"] + 1
        done = following >= store.count() or len(store.answers(state["rater"])) == store.count()
        return view(state["rater"], None if done else following)

    @telling
    def go_back(state):
        return view(state["rater"], max(state["place"] - 1, 0))

    @telling
    def go_on(state):
        return view(state["rater"])

    quick = {"outputs": outputs, "show_progress": "hidden", "api_visibility": "private"}
    gr.on([start.click, name.submit], begin, name, **quick)
    save.click(answer, [kept, *radios], **quick)
    back.click(go_back, kept, **quick)
    onward.click(go_on, kept, **quick)
    leave.click(lambda: ask(), None, **quick)
    page.load(load, kept, **quick)


def results_tab(path: pathlib.Path, page: gr.Blocks, tab: gr.Tab) -> None:
    """Adds the tables, which are read again whenever the tab is opened."""
    shown = gr.HTML(elem_id="results")

    def read():
        from experiments.ratings.tables import summarise

        try:
            report = summarise(RatingStore(path))
        except (ValueError, OSError, ImportError) as error:
            return app_html.message(str(error), wrong=True)
        return app_html.results(report) + app_html.DOWNLOAD

    again = gr.Button("Read again", elem_id="refresh", size="md")
    quick = {"outputs": shown, "show_progress": "minimal", "api_visibility": "private"}
    gr.on([tab.select, again.click], read, None, **quick)
