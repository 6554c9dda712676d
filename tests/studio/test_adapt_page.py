"""What the Adapt tab sends to its page."""

import shutil

import pytest

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
