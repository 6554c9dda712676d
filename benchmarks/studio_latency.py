"""Time from a changed control of the studio to the new picture on the screen, in a browser.

python benchmarks/studio_latency.py RUNS
"""

import argparse
import json
import os
import shutil
import statistics
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from studio_monkey import serve

CHANGES = {
    "strength": ("number input for Strength", ("0.2", "0.4", "0.6", "0.8", "1")),
    "seed": ("Seed", ("11", "12", "13", "14", "15")),
    "truncation": ("number input for Truncation", ("0.5", "0.6", "0.7", "0.8", "0.9")),
}
NEW_PICTURE = """([before]) => {
    const image = document.querySelectorAll('#explore-gallery img')[1];
    return image && image.src !== before && image.complete && image.naturalWidth > 0 }"""


def seconds(page: Page, label: str, value: str) -> float:
    """The time until the second picture of the gallery is another one, and loaded."""
    box = page.get_by_label(label).locator("visible=true").first
    before = page.locator("#explore-gallery img").nth(1).get_attribute("src")
    began = time.perf_counter()
    box.fill(value)
    page.wait_for_function(NEW_PICTURE, arg=[before], polling=5)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--port", type=int, default=7991)
    arguments = parser.parse_args()
    server = serve(arguments.runs, arguments.port)
    try:
        with sync_playwright() as playwright:
            path = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(f"http://127.0.0.1:{arguments.port}")
            page.locator("#explore-gallery img").nth(1).wait_for()
            page.wait_for_timeout(2000)
            report: dict[str, object] = {"load": os.getloadavg()[0]}
            for name, (label, values) in CHANGES.items():
                times = [seconds(page, label, value) for value in values]
                report[name] = {"median": round(statistics.median(times), 3), "max": round(max(times), 3)}
            browser.close()
    finally:
        server.terminate()
        server.communicate(timeout=90)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
