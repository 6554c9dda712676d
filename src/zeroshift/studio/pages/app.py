"""The pages together, and the server that shows them."""

import asyncio
import errno
import itertools
import os
import socket
import threading
import webbrowser
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from zeroshift.core.memory import release_freed_memory
from zeroshift.errors import ZeroshiftError
from zeroshift.studio.engine.photos import MAX_BYTES
from zeroshift.studio.engine.studio import Studio, opened_studio
from zeroshift.studio.pages.adapt import adapt_tab
from zeroshift.studio.pages.common import QUIET, session_key
from zeroshift.studio.pages.compare import compare_tab
from zeroshift.studio.pages.explore import explore_tab
from zeroshift.studio.pages.guard import LOOPBACK, Guard
from zeroshift.studio.pages.photo import photo_tab
from zeroshift.studio.pages.share import share_tab

__all__ = ["build_page", "serve", "serve_space", "served"]

_SWEEP, _AGE = 20.0, 1800.0  # seconds: how often files and memory are released, and how old the files are then
_RECONNECT = 5.0  # seconds
_OPEN_PAGES = 32  # gradio keeps half a megabyte for each
_ATTEMPTS = 3  # ports that are tried; another program may take one between the look and the start
_INTRODUCTION = (
    "A *generator* draws invented pictures, such as people. A *run* teaches it a new look from a word, its *domain*: "
    "robot, pencil sketch."
)
_CSS = (Path(__file__).with_name("studio.css")).read_text(encoding="utf-8")
# Fonts of the system: nothing is requested from other servers.
_THEME = gr.themes.Default(
    primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(body_text_color_subdued="*neutral_500")  # a contrast of 4.8 instead of 2.6


def build_page(studio: Studio, *, trains: bool = True) -> gr.Blocks:
    """The page with its tabs.

    Args:
        trains: whether it adapts, measures and writes; a Space only shows.
    """
    with gr.Blocks(title="zeroshift studio", analytics_enabled=False) as page:
        gr.Markdown("# zeroshift studio", elem_id="title")
        gr.Markdown(_INTRODUCTION)
        with gr.Tabs(selected="explore" if studio.workspace.finished_names() or not trains else "adapt") as tabs:
            explore_tab(studio, page, tabs)
            if trains:
                adapt_tab(studio, page)
            photo_tab(studio)
            compare_tab(studio, measures=trains)
            if trains:
                share_tab(studio)

        def close(request: gr.Request) -> None:
            studio.sessions.close(session_key(request))

        page.unload(close)
        # When an event is sent while gradio ends a stream of answers, its answer waits for the next stream, which only
        # another event opens. A timer sends none while one is pending, so without this one a page could stand still.
        gr.Timer(_RECONNECT).tick(lambda: None, trigger_mode="multiple", **QUIET)
    built: gr.Blocks = page
    return built


@contextmanager
def served(
    studio: Studio, *, host: str = LOOPBACK[0], port: int = 0, password: str = "", space: bool = False
) -> Iterator[str]:
    """Serves the studio while the body runs; yields its address.

    Args:
        host: address to listen on. Others than loopback need a password.
        port: 0: a free one from 7860 on.
        password: of the user "studio"; empty: none.
        space: shows without training, to anybody and in frames of other sites: a Space, which has a server before it.

    Raises:
        ZeroshiftError: an address of the network without a password, or one that cannot be used.
    """
    local = host in LOOPBACK
    if not local and not password and not space:
        raise ZeroshiftError(
            f"The studio would listen on {host}, where others can reach it. Give a password too: --password WORD."
        )
    os.environ |= {"GRADIO_TEMP_DIR": str(studio.temporary), "GRADIO_ANALYTICS_ENABLED": "False"}
    guard = Middleware(Guard, local=local, max_bytes=MAX_BYTES, framed=space)
    options: dict[str, Any] = {
        "server_name": host, "prevent_thread_lock": True, "quiet": True, "share": False,
        "max_file_size": MAX_BYTES, "show_error": True, "ssr_mode": False, "footer_links": [],
        "run_history": False, "enable_monitoring": False, "state_session_capacity": _OPEN_PAGES, "theme": _THEME,
        "css": _CSS, "app_kwargs": {"middleware": [guard], "docs_url": None, "redoc_url": None, "openapi_url": None},
    }  # fmt: skip
    if password:
        options |= {"auth": ("studio", password), "auth_message": "User name: studio"}

    async def launch(number: int) -> gr.Blocks:
        page = build_page(studio, trains=not space)
        page.queue(max_size=64)
        page.launch(server_port=number, **options)
        return page

    page, number = _launched(launch, [port] if port else _free_ports(host), host)
    ended = threading.Event()
    threading.Thread(target=_sweep, args=(studio, ended), name="studio-sweep", daemon=True).start()
    try:
        yield f"http://{host}:{number}"
    finally:
        ended.set()
        page.close(verbose=False)


def _sweep(studio: Studio, ended: threading.Event) -> None:
    """Removes old files for browsers and releases freed memory until the server ends."""
    while not ended.wait(_SWEEP):
        studio.sweep(_AGE)
        release_freed_memory()


def serve(studio: Studio, *, host: str, port: int, password: str, browser: bool) -> None:
    """Serves the studio until Ctrl-C.

    Raises:
        ZeroshiftError: see `served`.
        KeyboardInterrupt: on Ctrl-C.
    """
    with served(studio, host=host, port=port, password=password) as address:
        print(f"The studio runs at {address} (Ctrl-C ends it).", flush=True)
        if browser:
            webbrowser.open(address)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            if studio.queue.waiting:
                print("The studio ends. The running job is stopped first; the queue is kept.", flush=True)
            raise


def serve_space(runs: str) -> None:
    """Serves the pictures of a folder of runs, as `app.py` of a Space does."""
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    host = os.environ.get("GRADIO_SERVER_NAME", LOOPBACK[0])
    with opened_studio(Path(__file__).parents[3] / runs) as studio, served(studio, host=host, port=port, space=True):
        threading.Event().wait()


def _launched(
    launch: Callable[[int], Coroutine[Any, Any, gr.Blocks]], ports: Iterable[int], host: str
) -> tuple[gr.Blocks, int]:
    """The page and its port, the first one that no other program has taken since it was found to be free.

    Raises:
        ZeroshiftError: if it cannot listen.
    """
    for number in itertools.islice(ports, _ATTEMPTS):
        try:
            # In a running loop: where there is none, gradio makes several and does not close them.
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(asyncio.run, launch(number)).result(), number
        except OSError as error:
            reason = f"The studio cannot listen on {host}:{number} ({error})."
    raise ZeroshiftError(reason)


def _free_ports(host: str) -> Iterator[int]:
    """The free ports from 7860 on.

    Raises:
        ZeroshiftError: if there is none, or the host is no address of this machine.
    """
    for port in range(7860, 7960):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except PermissionError:
                continue
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise ZeroshiftError(f"{host} is no address of this machine ({error.strerror}).") from error
        yield port
    raise ZeroshiftError("No port from 7860 to 7959 is free. Choose one with --port.")
