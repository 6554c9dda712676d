"""Random use of the studio in a browser: actions, errors, and the memory of the server over time.

python benchmarks/studio_monkey.py RUNS --minutes 10 --seed 0
"""

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import Error, Locator, Page, sync_playwright

TABS = ("Explore", "Adapt", "Your photo", "Compare", "Share")
SLIDERS = {
    "Explore": ("Strength", "Truncation", "Number of samples"),
    "Your photo": ("Strength",),
    "Compare": ("Pictures in a row",),
}


class Missing(Exception):
    """What an action needs is not on the page."""


class Monkey:
    """Does random things on the page.

    Attributes:
        done: number of actions by name.
        problems: messages on the page and errors of its scripts.
    """

    def __init__(self, page: Page, rng: random.Random, photo: Path, address: str):
        self.page, self.rng, self.photo, self.address = page, rng, photo, address
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []
        self.tab = "Explore"
        page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))

    def act(self) -> None:
        """One action. What is not on the page now is skipped."""
        actions: list[Callable[[], None]] = [self.switch, self.slide, self.seed, self.choose, self.press, self.slide]
        actions += [self.upload] * (self.tab == "Your photo") + [self.start] * (self.tab == "Adapt")
        action = self.rng.choice([*actions, self.reload] if self.rng.random() < 0.1 else actions)
        try:
            action()
            self.done[action.__name__] += 1
        except Missing:
            return
        except Error:
            self.done["not done in time"] += 1
        for toast in self.page.get_by_test_id("toast-body").all_inner_texts():
            text = " ".join(toast.split())
            if "not expected" in text:  # other messages say what the user should do
                self.problems.append(text)

    def there(self, found: Locator) -> Locator:
        """The visible one of the elements that were found.

        Raises:
            Missing: if there is none, or it cannot be used now.
        """
        shown = found.locator("visible=true")
        if not shown.count() or not shown.first.is_enabled():
            raise Missing
        return shown.first

    def switch(self) -> None:
        self.tab = self.rng.choice(TABS)
        self.page.get_by_role("tab", name=self.tab).click(timeout=5000)

    def slide(self) -> None:
        name = self.rng.choice(SLIDERS.get(self.tab, ("Strength",)))
        box = self.there(self.page.get_by_label(f"number input for {name}"))
        low, high = float(box.get_attribute("min") or 0), float(box.get_attribute("max") or 1)
        box.fill(f"{self.rng.uniform(low, high):.2f}", timeout=3000)
        box.press("Enter")

    def seed(self) -> None:
        self.there(self.page.get_by_label("Seed", exact=False)).fill(str(self.rng.randrange(1000)), timeout=3000)

    def choose(self) -> None:
        self.there(self.page.get_by_role("combobox", name=re.compile("^(3. )?Runs"))).click(timeout=3000)
        options = self.page.get_by_role("option")
        if options.count():
            options.nth(self.rng.randrange(options.count())).click(timeout=3000)
        self.page.keyboard.press("Escape")

    def press(self) -> None:
        names = ("Random seed", "Style mixing", "Random walk", "Play", "Pause", "Translate the photo", "Stop", "Resume")
        name = self.rng.choice(names)
        self.there(self.page.get_by_role("button", name=name, exact=True)).click(timeout=3000)

    def upload(self) -> None:
        self.page.locator("#photo-upload input[type=file]").set_input_files(self.photo, timeout=5000)

    def start(self) -> None:
        self.there(self.page.locator("#run-start"))
        self.page.locator("#target textarea").fill(self.rng.choice(("robot", "mosaic", "elf", "zombie")), timeout=3000)
        self.page.locator("#setting-seed input").fill(str(self.rng.randrange(3)), timeout=3000)
        self.page.locator("#setting-adapt-steps input").fill("4", timeout=3000)
        self.page.locator("#run-start").click(timeout=3000)

    def reload(self) -> None:
        self.page.goto(self.address)
        self.page.locator("#explore-runs").wait_for(timeout=30_000)
        self.tab = "Explore"


def serve(runs: Path, port: int, folder: Path | None = None) -> subprocess.Popen[str]:
    """The studio in a process of its own, answering; it starts in `folder`."""
    words = [sys.executable, "-m", "zeroshift", "studio", "--runs", str(runs), "--port", str(port), "--no-browser"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=folder
    )
    assert server.stdout is not None
    line = server.stdout.readline() and server.stdout.readline()
    if "runs at" not in line:
        raise SystemExit(f"The studio did not start: {line}{server.stdout.read()}")
    return server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="folder of finished runs; it is copied")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=7990)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="studio-monkey-"))
    shutil.copytree(arguments.runs, folder / "runs", ignore=shutil.ignore_patterns(".zeroshift-*"))
    rng = random.Random(arguments.seed)
    photo = folder / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)).save(photo)
    server = serve(folder / "runs", arguments.port)
    memory: list[tuple[float, float]] = []  # minutes, MiB
    try:
        with sync_playwright() as playwright:
            path = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            address = f"http://127.0.0.1:{arguments.port}"
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            monkey = Monkey(page, rng, photo, address)
            monkey.reload()
            began, process = time.monotonic(), psutil.Process(server.pid)
            while (minutes := (time.monotonic() - began) / 60) < arguments.minutes:
                monkey.act()
                page.wait_for_timeout(rng.choice((20, 100, 300)))
                memory.append((minutes, process.memory_info().rss / 2**20))
                if server.poll() is not None:
                    raise SystemExit("The studio has ended.")
            browser.close()
    finally:
        server.terminate()
        output = server.communicate(timeout=90)[0]
        shutil.rmtree(folder, ignore_errors=True)
    fifths = [
        statistics.median(value for at, value in memory if number <= 5 * at / arguments.minutes < number + 1)
        for number in range(5)
    ]
    report = {
        "actions": sum(monkey.done.values()) - monkey.done["not done in time"],
        "by kind": dict(monkey.done.most_common()),
        "problems": monkey.problems,
        "tracebacks": output.count("Traceback"),
        "memory in MiB, median of each fifth": [round(value) for value in fifths],
    }
    print(json.dumps(report, indent=2))
    if report["tracebacks"]:
        print(output[-8000:], file=sys.stderr)


if __name__ == "__main__":
    main()
