"""One studio and one browser for all tests of the pages."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.studio.browser.visit import CHROMIUM, Visit
from tests.studio.conftest import free_port
from zeroshift.studio.engine.studio import Studio, opened_studio

_PATIENCE = 60_000  # milliseconds
_FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def studio(finished_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    runs = tmp_path_factory.mktemp("browser") / "runs"
    shutil.copytree(finished_runs, runs)
    with opened_studio(runs) as opened:
        opened.photos.steps = opened.photos.tune_steps = 2
        yield opened


@pytest.fixture(scope="package")
def address(studio: Studio) -> Iterator[str]:
    from zeroshift.studio.pages.app import served  # gradio, which takes seconds

    with served(studio, port=free_port()) as opened:
        yield opened


@pytest.fixture
def visit(browser: Browser, studio: Studio, address: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """The studio in a page of the parametrized width and color scheme. It must load nothing from elsewhere."""
    width, scheme = getattr(request, "param", (1280, "light"))
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True)
    context.grant_permissions(["camera", "clipboard-read", "clipboard-write"], origin=address)
    page = context.new_page()
    page.set_default_timeout(_PATIENCE)
    expect.set_options(timeout=_PATIENCE)
    visited = Visit(page)
    page.on("request", lambda asked: visited.requests.append(asked.url))
    page.on("pageerror", lambda error: visited.errors.append(str(error)))
    page.goto(address)
    expect(page.locator("#explore-gallery img").first).to_be_visible()
    yield visited
    for job in studio.queue.waiting:  # of a test that failed
        studio.queue.stop(job)
        studio.queue.wait(job, 60)
    assert [url for url in visited.requests if not url.startswith((address, "data:", "blob:"))] == []
    assert visited.errors == []
    assert page.evaluate("window.hacked") is None
    context.close()
