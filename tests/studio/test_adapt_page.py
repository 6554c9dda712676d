"""What the tabs send to their pages."""

import shutil

import pytest
from PIL import Image

from zeroshift.studio.engine.explorer import Picture, Sheet
from zeroshift.studio.engine.studio import Studio


@pytest.mark.slow
def test_the_list_of_runs_is_sent_only_when_it_has_changed(studio: Studio) -> None:
    """A list that is drawn again while somebody chooses from it loses the click."""
    from zeroshift.studio.pages.adapt import _view  # gradio, which takes seconds

    first = _view(studio, "zombie")
    assert {name for _, name in first[0]["choices"]} == {"sketch", "zombie"}
    assert "value" not in first[0]
    second = _view(studio, "sketch", first[-1])
    assert second[0] == {"__type__": "update"}
    assert second[1] == "Finished."
    shutil.copytree(studio.workspace.folder("zombie"), studio.workspace.folder("elf"))
    third = _view(studio, "sketch", second[-1])
    assert {name for _, name in third[0]["choices"]} == {"elf", "sketch", "zombie"}
    shutil.rmtree(studio.workspace.folder("sketch"))
    assert _view(studio, "sketch", third[-1])[0]["value"] in ("elf", "zombie")


@pytest.mark.slow
def test_the_chosen_picture_stays_when_the_columns_change() -> None:
    from zeroshift.studio.pages.explore import _kept_choice

    def sheet(samples: int, *labels: str) -> Sheet:
        image = Image.new("RGB", (1, 1))
        return Sheet([[Picture(image, label, "")] * samples for label in labels], 0)

    one, two = sheet(4, "photo", "robot"), sheet(4, "photo", "zombie", "robot")
    assert _kept_choice(one, 3, two) == 5, "sample 1 as a robot"
    assert _kept_choice(two, 5, one) == 3
    assert _kept_choice(two, 4, one) == 3, "zombies are gone: the first domain of the same sample"
    assert _kept_choice(one, 7, sheet(2, "photo", "robot")) == 3, "there are fewer samples"
    assert _kept_choice(one, 3, sheet(4, "photo")) == 1, "the source alone"
    assert _kept_choice(sheet(4, "photo"), 2, one) == 4


@pytest.mark.slow
def test_the_default_method_is_that_of_the_generator() -> None:
    from zeroshift.studio.pages.adapt import _methods

    embedded, published = _methods("miniature"), _methods("ffhq")
    assert embedded["value"] == "compass"
    assert ("compass (default)", "compass") in embedded["choices"]
    assert ("ipl", "ipl") in embedded["choices"]
    assert published["value"] == "ipl"
    assert ("ipl (default)", "ipl") in published["choices"]
