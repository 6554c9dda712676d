"""The studio in a real browser: every tab, a whole run, photos, hostile input, screens, keyboard."""

import json
import re
import shutil
import struct
import threading
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.studio.browser.visit import MARKS, RUN_PATIENCE, TABS, Visit, photo
from zeroshift.studio.engine.jobs import FunctionJob
from zeroshift.studio.engine.studio import Studio

HOSTILE = '<script>window.hacked=1</script><img src="x" onerror="window.hacked=1">'

pytestmark = MARKS


def test_a_changed_control_draws_other_pictures_and_a_download_says_how(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    picture = page.locator("#explore-gallery img").nth(1)
    before = picture.get_attribute("src") or ""
    page.get_by_label("number input for Strength").first.fill("0.4")
    expect(picture).not_to_have_attribute("src", before)
    command = page.locator(".command textarea").first
    expect(command).to_have_value(re.compile("zeroshift draw .*--strength 0.4"))
    with page.expect_download() as download:
        page.locator("#explore-download").click()
    saved = tmp_path / "saved.png"
    download.value.save_as(saved)
    with Image.open(saved) as image:
        assert image.size == (64, 64)
        assert "--strength 0.4" in image.info["zeroshift"]
    page.get_by_role("button", name="Random seed").click()
    expect(command).to_have_value(re.compile("--seed [0-9]+"))
    page.get_by_role("button", name="Random walk").click()
    page.locator("#walk-play").click()
    expect(command).to_have_value(re.compile("--position 0.[0-9]+"))
    page.locator("#walk-play").click()


def test_runs_are_mixed_with_shares(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("combobox", name="Runs").first.click()
    page.get_by_role("option", selected=False).first.click()
    page.keyboard.press("Escape")
    page.get_by_label("Mix the chosen runs into one picture").check()
    share = page.get_by_label("number input for Share of").first
    share.fill("0.8")
    share.press("Enter")
    expect(page.locator(".command textarea").first).to_have_value(re.compile("--mix 0.8,0.5"))


def test_a_run_from_click_to_picture_survives_a_reload_and_a_stop(visit: Visit, studio: Studio) -> None:
    page = visit.page
    visit.start_run("robot", 3000)
    state = page.locator("#run-state textarea")
    expect(state).to_have_value(re.compile("Running. .*step [1-9]"), timeout=RUN_PATIENCE)
    page.reload()  # as after closing the page
    visit.tab("Adapt")
    expect(state).to_have_value(re.compile("Running"), timeout=RUN_PATIENCE)
    expect(page.locator("#run-curves svg").first).to_be_visible()
    page.get_by_role("button", name="Stop", exact=True).first.click()
    expect(state).to_have_value(re.compile("Stopped"), timeout=RUN_PATIENCE)
    # With the steps that it has, it is finished when it is resumed.
    run = studio.workspace.run("miniature-robot-nada")
    done = studio.watcher.progress(run).step
    assert 0 < done < 3000
    shorten(run.path / "config.json", done + 1)
    page.get_by_role("button", name="Resume").click()
    expect(state).to_have_value(re.compile("Finished"), timeout=RUN_PATIENCE)
    expect(page.locator("#run-preview img")).to_be_visible()
    visit.tab("Compare")
    expect(page.locator("#compare-gallery img").first).to_be_visible()


def shorten(config: Path, steps: int) -> None:
    """Changes the steps of a stopped run in its settings."""
    text = config.read_text(encoding="utf-8")
    config.write_text(re.sub(r'("adapt": \{\s*"steps": )\d+', rf"\g<1>{steps}", text), encoding="utf-8")


def test_a_hostile_label_is_text_everywhere(visit: Visit, studio: Studio) -> None:
    page = visit.page
    visit.start_run(HOSTILE, 1)
    expect(page.locator("#run-notes textarea")).to_have_value(re.compile("not trained on"))
    run = studio.workspace.folder("hostile")
    shutil.copytree(studio.workspace.folder("zombie"), run)
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    (run / "config.json").write_text(json.dumps({**config, "target": HOSTILE}), encoding="utf-8")
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"stage": HOSTILE, "step": 0, "loss": 1.0, HOSTILE: 2.0}) + "\n")
    gate = threading.Event()
    job = studio.queue.add(FunctionJob(HOSTILE, "invert", function=lambda job: gate.wait(60)))
    try:
        expect(page.locator("#queue")).to_contain_text("<script>")
        page.reload()
        expect(page.locator("#explore-gallery")).to_contain_text("<script>")
        for tab in TABS:
            visit.tab(tab)
        visit.tab("Adapt")
        expect(page.locator("#run-curves")).to_contain_text("<script>")
    finally:
        gate.set()
        studio.queue.wait(job, 30)
        shutil.rmtree(run)


def test_a_label_that_means_nothing_is_refused_with_a_sentence(visit: Visit) -> None:
    visit.start_run("the <b>photo</b>", 1)
    expect(visit.page.get_by_label("Before you start")).to_have_value(re.compile("'b'"))  # ends the first click
    visit.page.locator("#target textarea").fill("a photo")
    visit.page.locator("#run-start").click()
    expect(visit.message()).to_contain_text("the same words")
    assert visit.page.get_by_test_id("toast-body").locator("b").count() == 0


def test_a_photo_is_uploaded_cut_and_translated_and_its_file_removed(
    visit: Visit, studio: Studio, tmp_path: Path
) -> None:
    page = visit.page
    visit.tab("Your photo")
    page.locator("#photo-upload input[type=file]").set_input_files(photo(tmp_path))
    expect(page.locator("#photo-outline img")).to_be_visible()
    page.get_by_label("A square of my choice").check()
    cut = page.locator("#photo-cut img")
    before = cut.get_attribute("src") or ""
    size = page.get_by_label("number input for Size, % of the shorter side")
    size.fill("60")
    size.press("Enter")
    expect(cut).not_to_have_attribute("src", before)
    page.locator("#photo-start").click()
    expect(page.locator("#photo-state textarea")).to_have_value("Finished.")
    expect(page.locator("#photo-gallery img").nth(1)).to_be_visible()
    command = page.locator(".command textarea:visible").first
    expect(command).to_have_value(re.compile("zeroshift translate .*me.png --align"))
    assert not list(studio.temporary.rglob("me.png"))


@pytest.mark.parametrize("content", [b"no image", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31 - 1) + b"IHDR" * 9])
def test_a_wrong_file_is_refused_with_a_sentence(visit: Visit, studio: Studio, tmp_path: Path, content: bytes) -> None:
    wrong = tmp_path / "wrong.png"
    wrong.write_bytes(content)
    visit.tab("Your photo")
    visit.page.locator("#photo-upload input[type=file]").set_input_files(wrong)
    expect(visit.message()).to_contain_text("wrong.png cannot be read")
    assert not list(studio.temporary.rglob("wrong.png"))


def test_a_space_is_written_from_the_page(visit: Visit) -> None:
    visit.tab("Share")
    expect(visit.page.locator("#share-runs")).to_contain_text(")")  # the latest run is chosen
    visit.page.locator("#share-write").click()
    expect(visit.page.locator("#share-result textarea")).to_have_value(re.compile("Written: .*-space"))


@pytest.mark.parametrize("visit", [(400, "light"), (400, "dark"), (1800, "dark")], indirect=True)
def test_every_tab_fits_narrow_and_wide_screens_in_light_and_dark(visit: Visit) -> None:
    page = visit.page
    for tab in TABS:
        shown = page.get_by_role("tab", name=tab)
        if not shown.is_visible():  # folded into the menu of tabs
            page.get_by_label("More tabs").click()
            shown = page.locator(".overflow-dropdown button", has_text=tab)
        shown.click()
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{tab} is {wide} pixels wider than the screen"
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", color)[:3])) > 384
    assert light != dark, f"background {color} in {'dark' if dark else 'light'} mode"


def test_every_control_has_a_name_and_is_reached_by_the_keyboard(visit: Visit) -> None:
    page = visit.page
    nameless = """() => [...document.querySelectorAll('input, textarea, select, button')]
        .filter(one => one.offsetParent !== null && one.type !== 'file')
        .filter(one => !(one.getAttribute('aria-label') || one.getAttribute('aria-labelledby') || one.title
            || one.innerText.trim() || one.querySelector('img[alt]:not([alt=""])')
            || one.placeholder || (one.labels && one.labels.length)))
        .map(one => one.outerHTML.slice(0, 200))"""
    for tab in TABS:
        visit.tab(tab)
        assert page.evaluate(nameless) == [], tab
    visit.tab("Adapt")
    page.get_by_role("tab", name="Adapt").focus()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("(document.activeElement.closest('#target, #run-start') || {}).id"))
    assert [one for one in dict.fromkeys(reached) if one] == ["target", "run-start"]
