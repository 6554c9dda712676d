"""Pictures of the tabs of the studio, as in docs/studio.md.

python benchmarks/studio_pictures.py RUNS --photo PHOTO --out docs/images/studio
"""

import argparse
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright
from studio_monkey import serve

PATIENCE = 300_000  # milliseconds
PREPARED = {"explore": 600, "adapt": 600, "photo": 1500, "compare": 600, "share": 600}  # milliseconds to settle


class Tour:
    """Brings each tab into the state that its picture shows.

    Args:
        page: an open page of the studio.
        photo: for the photo tab.
        runs: titles of the runs to choose, for example "zombie (zombie)"; the first one also for single choices.
    """

    def __init__(self, page: Page, photo: Path, runs: Sequence[str]):
        self.page, self.photo_file, self.runs = page, photo, runs

    def open(self, tab: str) -> None:
        self.page.get_by_role("tab", name=tab).click()
        expect(self.page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
        self.page.wait_for_timeout(2000)  # the tab chooses the latest run

    def choose(self, label: str, count: int | None = None) -> None:
        """Chooses runs in a list for several, and no others."""
        field = self.page.get_by_role("combobox", name=label).locator("visible=true").first
        wanted = self.runs[:count]
        field.click()
        titles = [text.removeprefix("\u2713").strip() for text in self.page.get_by_role("option").all_inner_texts()]
        for title in titles:
            option = self.page.get_by_role("option", name=title, exact=True)
            if (option.get_attribute("aria-selected") == "true") != (title in wanted):
                option.click()
        self.page.keyboard.press("Escape")

    def explore(self) -> None:
        self.open("Explore")
        self.choose("Runs", 1)
        expect(self.page.locator("#explore-gallery img").first).to_be_visible()

    def compare(self) -> None:
        self.open("Compare")
        self.choose("Runs")
        expect(self.page.locator("#compare-gallery img").first).to_be_visible()
        self.page.locator("#measure").click()
        note = self.page.get_by_label("About the measures")
        expect(note).to_have_value(re.compile("in the queue"))
        expect(note).not_to_have_value(re.compile("in the queue"), timeout=PATIENCE)

    def photo(self) -> None:
        self.open("Your photo")
        self.page.locator("#photo-upload input[type=file]").set_input_files(self.photo_file)
        expect(self.page.locator("#photo-outline img")).to_be_visible()
        self.choose("3. Runs")
        self.page.locator("#photo-start").click()
        expect(self.page.locator("#photo-state textarea")).to_have_value("Finished.", timeout=PATIENCE)

    def share(self) -> None:
        self.open("Share")
        self.choose("Runs on the page")

    def adapt(self) -> None:
        """Two runs in the queue, the first one in the middle of its adapt stage."""
        self.open("Adapt")
        for target in ("elf", "mosaic"):
            self.page.locator("#target textarea").fill(target)
            self.page.locator("#run-start").click()
            expect(self.page.locator("#queue")).to_contain_text(target)
        list_box = self.page.get_by_role("combobox", name="Run to watch")
        list_box.click()
        self.page.get_by_role("option", name=re.compile("^elf")).click()
        state = self.page.locator("#run-state textarea")
        expect(state).to_have_value(re.compile(r"Adapting the generator.*: step (\d{3}|[6-9]\d)"), timeout=PATIENCE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="folder of finished runs; it is copied")
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--choose", nargs="+", default=["zombie (zombie)", "pencil sketch (sketch)"])
    parser.add_argument("--tabs", nargs="+", choices=list(PREPARED), default=list(PREPARED))
    parser.add_argument("--scheme", choices=["light", "dark"], default="light")
    parser.add_argument("--width", type=int, default=1100, help="pixels")
    parser.add_argument("--out", type=Path, default=Path("docs/images/studio"))
    parser.add_argument("--port", type=int, default=7992)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="studio-pictures-"))
    shutil.copytree(arguments.runs, folder / "runs", ignore=shutil.ignore_patterns(".zeroshift-*"))
    server = serve(Path("runs"), arguments.port, folder)
    try:
        with sync_playwright() as playwright:
            path = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            size = {"width": arguments.width, "height": 900}
            context = browser.new_context(viewport=size, color_scheme=arguments.scheme)  # type: ignore[arg-type]
            page = context.new_page()
            page.set_default_timeout(60_000)
            expect.set_options(timeout=60_000)
            page.goto(f"http://127.0.0.1:{arguments.port}")
            tour = Tour(page, arguments.photo.resolve(), arguments.choose)
            for tab in ("explore", "compare", "photo", "share", "adapt"):  # the runs of the last one take the processor
                if tab in arguments.tabs:
                    getattr(tour, tab)()
                    page.evaluate("document.activeElement?.blur(); scrollTo(0, 0)")
                    page.mouse.move(0, 0)
                    page.wait_for_timeout(PREPARED[tab])
                    for close in page.get_by_test_id("toast-close").all():
                        close.click()
                    page.screenshot(path=arguments.out / f"{tab}.png", full_page=True)
                    print(arguments.out / f"{tab}.png", flush=True)
            browser.close()
    finally:
        server.terminate()
        server.communicate(timeout=90)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
