"""A page of the studio in a real browser, for tests."""

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RUN_PATIENCE = 240_000  # milliseconds, for processes of their own on a busy machine
TABS = ("Explore", "Adapt", "Your photo", "Compare", "Share")
MARKS = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # the server and its libraries run in this process
    pytest.mark.xdist_group("browser"),  # one server, one browser
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]


@dataclass
class Visit:
    """An open page, with what it asked for and complained of."""

    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def tab(self, name: str) -> None:
        """Opens a tab, and waits until it is shown."""
        tab = self.page.get_by_role("tab", name=name)
        tab.click()
        expect(tab).to_have_attribute("aria-selected", "true")

    def message(self, words: str = "") -> Locator:
        """The first message, or the first one with these words."""
        return self.page.get_by_test_id("toast-body").filter(has_text=words).first

    def choose(self, list_name: str, option: str) -> None:
        """Chooses an entry of a list by its whole title."""
        self.page.get_by_role("combobox", name=list_name).locator("visible=true").first.click()
        self.page.get_by_role("option", name=option, exact=True).click()
        self.page.keyboard.press("Escape")

    def start_run(self, target: str, steps: int, method: str = "nada") -> None:
        """Fills the form of the Adapt tab, and starts."""
        self.tab("Adapt")
        self.page.locator("#target textarea").fill(target)
        self.choose("Method", method)
        steps_field = self.page.locator("#setting-adapt-steps input")
        expect(steps_field).to_have_value("240")  # the default of this method
        steps_field.fill(str(steps))
        self.page.locator("#run-start").click()

    def run_state(self, words: str) -> None:
        """Waits for the state of the watched run."""
        state = self.page.locator("#run-state textarea")
        expect(state).to_have_value(re.compile(words), timeout=RUN_PATIENCE)


def photo(path: Path, name: str = "me.png") -> Path:
    """A file with a photo."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)).save(path / name)
    return path / name
