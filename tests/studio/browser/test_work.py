"""The studio in a real browser: camera, clipboard, styles, exports, slow answers."""

import re
import time
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.studio.browser.visit import MARKS, RUN_PATIENCE, Visit, photo
from tests.studio.conftest import until
from zeroshift.studio.engine.jobs import FunctionJob, ProcessJob
from zeroshift.studio.engine.studio import Studio
from zeroshift.training.run_folder import RunFolder

pytestmark = MARKS

PASTE = """async () => {
    const canvas = new OffscreenCanvas(120, 90);
    canvas.getContext('2d').fillRect(20, 20, 60, 40);
    const image = await canvas.convertToBlob({type: 'image/png'});
    await navigator.clipboard.write([new ClipboardItem({'image/png': image})]);
}"""

# The end of each stream of answers arrives after the next event was sent, as on a busy machine.
LATE_END = """{
    const plain = window.fetch;
    window.fetch = async (...request) => {
        const answer = await plain(...request);
        if (!(request[0].url || String(request[0])).includes('/queue/data')) return answer;
        const late = new TransformStream({async transform(chunk, controller) {
            const text = new TextDecoder().decode(chunk), end = text.indexOf('close_stream');
            const start = end < 0 ? text.length : text.lastIndexOf('data:', end);
            controller.enqueue(new TextEncoder().encode(text.slice(0, start)));
            if (end < 0) return;
            await new Promise(done => setTimeout(done, 1500));
            controller.enqueue(new TextEncoder().encode(text.slice(start)));
        }});
        return new Response(answer.body.pipeThrough(late), {status: answer.status, headers: answer.headers});
    };
}"""


def test_later_layers_come_from_another_seed(visit: Visit) -> None:
    page = visit.page
    picture = page.locator("#explore-gallery img").nth(1)
    before = picture.get_attribute("src") or ""
    page.get_by_role("button", name="Style mixing").click()
    page.get_by_label("Take the later layers from another seed").check()
    expect(picture).not_to_have_attribute("src", before)
    layer = page.get_by_label("number input for First of these layers")
    layer.fill("2")
    layer.press("Enter")
    expect(page.locator(".command textarea").first).to_have_value(re.compile("--style-seed 1 --style-layer 2"))


def test_a_walk_pauses_when_another_tab_is_opened(visit: Visit) -> None:
    visit.page.get_by_role("button", name="Random walk").click()
    play = visit.page.locator("#walk-play")
    play.click()
    expect(play).to_have_text("Pause")
    visit.tab("Compare")
    visit.tab("Explore")
    expect(play).to_have_text("Play")


def test_a_photo_is_taken_with_the_camera(visit: Visit) -> None:
    page = visit.page
    visit.tab("Your photo")
    page.locator("#photo-upload").get_by_label("Capture from camera").click()
    page.locator("#photo-upload").get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#photo-upload video').videoWidth > 0")
    page.locator("#photo-upload").get_by_label("capture photo").click()
    expect(page.locator("#photo-outline img")).to_be_visible()
    expect(page.locator("#photo-state textarea")).to_have_value(re.compile("^(Ready|Choose one)"))


def test_a_photo_is_pasted_and_its_result_downloaded_with_settings(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    visit.tab("Your photo")
    page.evaluate(PASTE)
    page.locator("#photo-upload").get_by_label("Paste from clipboard").click()
    expect(page.locator("#photo-outline img")).to_be_visible()
    page.locator("#photo-start").click()
    expect(page.locator("#photo-gallery img").nth(1)).to_be_visible()
    button = page.locator("#photo-download")
    shown = page.locator("#photo-slider img").last
    before = shown.get_attribute("src") or ""
    page.locator("#photo-gallery img").first.click()
    expect(button).to_contain_text("photo, redrawn")
    expect(shown).not_to_have_attribute("src", before)
    page.locator("#photo-gallery img").nth(1).click()
    expect(button).not_to_contain_text("redrawn")
    with page.expect_download() as download:
        button.click()
    download.value.save_as(tmp_path / "result.png")
    with Image.open(tmp_path / "result.png") as image:
        assert image.size == (64, 64)
        assert "zeroshift translate" in image.info["zeroshift"]


def test_a_photo_that_replaces_another_ends_its_inversion(visit: Visit, studio: Studio, tmp_path: Path) -> None:
    page = visit.page
    visit.tab("Your photo")
    page.locator("#photo-upload input[type=file]").set_input_files(photo(tmp_path, "first.png"))
    outline = page.locator("#photo-outline img")
    expect(outline).to_be_visible()
    before = outline.get_attribute("src") or ""
    page.locator("#photo-start").click()
    Image.new("RGB", (80, 80), "red").save(tmp_path / "second.png")
    page.locator("#photo-upload input[type=file]").set_input_files(tmp_path / "second.png")
    expect(outline).not_to_have_attribute("src", before)
    page.locator("#photo-start").click()
    expect(page.locator(".command textarea:visible").first).to_have_value(re.compile("second.png"))


def test_chosen_runs_are_measured_and_the_table_shows_it(
    visit: Visit, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--num", "16", "--metrics", "clip-distance:miniature-judge"]
    monkeypatch.setattr(ProcessJob, "arguments", property(lambda job: [job.kind, job.place, *few]))
    visit.tab("Compare")
    expect(visit.page.locator("#compare-gallery img").first).to_be_visible()
    visit.page.locator("#measure").click()
    expect(visit.message()).to_contain_text("in the queue")
    expect(visit.page.locator("#measures")).to_contain_text("clip-distance", timeout=RUN_PATIENCE)
    until(lambda: not studio.queue.waiting)


def test_a_generator_is_exported(visit: Visit) -> None:
    page = visit.page
    visit.tab("Share")
    expect(page.locator("#export-run input")).not_to_have_value("")  # chosen when the tab has loaded
    page.locator("#export-write").click()
    result = page.locator("#export-result textarea")
    expect(result).to_have_value(re.compile(r"^Written: .*\.safetensors"))
    assert Path(result.input_value().removeprefix("Written: ")).is_file()


def test_a_slow_look_at_a_run_does_not_choose_it_again(
    visit: Visit, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit.tab("Adapt")
    watched = visit.page.get_by_role("combobox", name="Run to watch")
    visit.choose("Run to watch", "zombie")
    visit.run_state("^Finished")
    looks = []
    plain = studio.watcher.stamp

    def slow(run: RunFolder) -> tuple[object, ...]:
        if run.path.name == "zombie":
            looks.append(run)
            time.sleep(1)
        return plain(run)

    monkeypatch.setattr(studio.watcher, "stamp", slow)
    visit.page.wait_for_timeout(1200)  # a look has begun
    visit.choose("Run to watch", "pencil sketch (sketch)")
    visit.page.wait_for_timeout(2500)
    assert looks
    expect(watched).to_have_value("pencil sketch (sketch)")


def test_a_page_goes_on_when_an_answer_is_lost(visit: Visit, studio: Studio) -> None:
    def work(job: FunctionJob) -> None:
        while True:
            job.report(0, 1, "waits")
            time.sleep(0.1)

    visit.page.add_init_script(LATE_END)
    visit.page.reload()
    visit.tab("Adapt")
    queue = visit.page.locator("#queue")
    visit.page.wait_for_timeout(4000)  # ticks, whose answers are lost
    job = studio.queue.add(FunctionJob("waits for nothing", "test", function=work))
    expect(queue).to_contain_text(job.title, timeout=30_000)
    studio.queue.stop(job)
    until(lambda: not studio.queue.waiting)


def test_two_runs_wait_in_one_queue_and_never_write_one_folder(visit: Visit, studio: Studio) -> None:
    page, start = visit.page, visit.page.locator("#run-start")
    names = ["miniature-elf-nada", "miniature-mosaic-nada"]
    visit.start_run("elf", 3000)
    visit.run_state("^Running. .*step [1-9]")
    start.click()
    expect(visit.message("in the queue already")).to_be_visible()
    page.locator("#target textarea").fill("mosaic")
    start.click()
    expect(page.locator("#queue")).to_contain_text(names[1])
    assert [Path(job.place).name for job in studio.queue.waiting] == names
    visit.run_state("^Waiting")
    stop = page.get_by_role("button", name="Stop", exact=True).locator("visible=true")
    stop.click()
    visit.run_state("^Stopped")
    page.get_by_role("button", name="Resume").click()
    visit.run_state("^Waiting")
    visit.choose("Run to watch", "elf (miniature-elf-nada)")
    visit.run_state("^Running")
    stop.click()
    visit.run_state("^Stopped")
    visit.choose("Run to watch", "mosaic (miniature-mosaic-nada)")
    visit.run_state("^Running")
