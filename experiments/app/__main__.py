"""Serve a local page to chat, to rate replies and to see results: `python -m experiments.app`.

Only this machine can reach it, unless --host says otherwise, and it contacts no other machine.
"""

import contextlib
import ipaddress
import logging
import os
import pathlib
import socket
import tempfile

from absl import app, flags

from experiments import flags as settings
from experiments import startup

UPLOAD = 20 * 2**20  # bytes
_STRAY = 3600, 3600  # seconds between removals of unread uploads, and their age by then
_WAITING = 32  # maximum number of requests in the queue
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' blob: data:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


def define_flags() -> None:
    settings.define_device_flags()
    flags.DEFINE_string("host", "127.0.0.1", "address to listen on; the default is this machine")
    flags.DEFINE_integer("port", 7860, "TCP port to listen on", lower_bound=1, upper_bound=65535)
    flags.DEFINE_string("runs", "runs", "folder that is searched for training runs")
    flags.DEFINE_string("ratings", "ratings.sqlite", "file of items and ratings made by experiments.ratings")
    flags.DEFINE_boolean("results", True, "show the tab of results, which names the systems")


def main(argv) -> None:
    startup.start(argv, "--runs=runs")
    given = flags.FLAGS
    # A signal ends the page in the same way, and uploads are removed.
    with startup.one_sentence("stopped; no rating that was saved is lost", unwind=True):
        serve(given.host, given.port, given.runs, given.ratings, given.results)


def serve(host: str, port: int, runs: str, ratings: str, results: bool) -> None:
    """Serves the page until it is interrupted.

    Raises:
      ImportError: the optional extra is not installed.
      ValueError: the address cannot be used.
    """
    with contextlib.ExitStack() as stack:
        uploads = stack.enter_context(tempfile.TemporaryDirectory(prefix="mtml_jax-"))
        prepare_environment(uploads)
        server = make_app(pathlib.Path(runs), pathlib.Path(ratings), host=host, results=results)
        listening = stack.enter_context(_listen(host, port))
        import uvicorn

        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{port}", flush=True)
        if not _is_loopback(host):
            print(
                "anyone who reaches this address can chat and rate under any name, and nothing that "
                "they send is encrypted",
                flush=True,
            )

        class Server(uvicorn.Server):
            async def shutdown(self, sockets=None):
                # Otherwise each connection that is cut logs a traceback.
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
                await super().shutdown(sockets)

        # Open pages hold connections, which uvicorn would wait for without a limit.
        config = uvicorn.Config(server, log_level="warning", timeout_graceful_shutdown=2)
        Server(config).run(sockets=[listening])


def prepare_environment(uploads: str) -> None:
    """Turns telemetry off and sets the folder of uploads, before the first import of Gradio."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads}
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def make_app(runs: pathlib.Path, ratings: pathlib.Path, *, host: str, results: bool = True):
    """Builds the page as an ASGI application.

    Args:
      runs: folder of training runs.
      ratings: file of ratings; it may be written later.
      host: address to listen on; on a loopback address, other host names are refused.
      results: whether to add a tab of results.

    Raises:
      ImportError: the optional extra is not installed.
    """
    try:
        import fastapi
        import gradio as gr
    except ImportError:
        raise ImportError(
            "expected gradio, which draws the page, got no such package; run pip install -e '.[app]'"
        ) from None
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from experiments.app.chat import chat_tab
    from experiments.app.rate import keep_rater, rate_tab, results_tab
    from experiments.app.style import CSS, KEYS
    from experiments.ratings.store import RatingStore
    from experiments.ratings.tables import as_csv

    with gr.Blocks(title="mtml_jax", analytics_enabled=False, delete_cache=_STRAY) as page:
        kept = keep_rater()
        with gr.Tab("Chat", id="chat"):
            chat_tab(runs, page)
        with gr.Tab("Rate", id="rate"):
            rate_tab(ratings, page, kept)
        if results:
            with gr.Tab("Results", id="results") as tab:
                results_tab(ratings, page, tab)
    page.queue(max_size=_WAITING, default_concurrency_limit=4, api_open=False)

    server = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if _is_loopback(host):  # a page from elsewhere cannot reach this one by another name
        server.add_middleware(
            TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", host]
        )
    server.add_middleware(_Guard)
    if results:

        @server.get("/ratings.csv")
        def table():
            try:
                text = as_csv(RatingStore(ratings))
            except (ValueError, OSError) as error:
                return fastapi.Response(str(error), 404, media_type="text/plain")
            named = {"Content-Disposition": 'attachment; filename="ratings.csv"'}
            return fastapi.Response(text, media_type="text/csv; charset=utf-8", headers=named)

    off = "run_history", "show_error", "ssr_mode", "pwa", "enable_monitoring", "mcp_server"
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
    return gr.mount_gradio_app(
        server, page, "/", server_name=host, footer_links=[], max_file_size=UPLOAD, css=CSS, js=KEYS,
        theme=gr.themes.Base(primary_hue="blue", **fonts), **dict.fromkeys(off, False),
    )  # fmt: skip


class _Guard:
    """Limits the size of requests, and lets the page load nothing from other hosts."""

    def __init__(self, inner):
        self._inner = inner

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        headers = dict(scope["headers"])
        size = headers.get(b"content-length", b"0")
        if b"transfer-encoding" in headers:  # its size is unknown; browsers never send it
            await _refuse(send, 411, "the size must be declared in the header")
            return
        if not size.isdigit() or int(size) > UPLOAD + 2**20:
            await _refuse(send, 413, f"more than {UPLOAD // 2**20} MB are not taken")
            return

        async def guarded(event):
            if event["type"] == "http.response.start":
                event["headers"] = [*event.get("headers", []), *_HEADERS]
            await send(event)

        await self._inner(scope, receive, guarded)


async def _refuse(send, status, text):
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def _listen(host, port):
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(found[0], socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(found[4])
            listening.listen(128)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise ValueError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another --host or --port"
        ) from None
    return listening


def _is_loopback(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
