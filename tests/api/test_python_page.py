"""The examples of docs/python.md run as they are, and give what the page says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import zeroshift

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path / "cache"))
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), names)
    run = Path("runs/zombie")
    assert (run / "report.html").exists()
    assert names["longer"].adapt.steps == 30
    assert names["longer"].adapt.batch_size == 2
    assert names["other"].method == "nada"
    for name in ("step-10.png", "step-30.png", "zombie.png", "translated.png", "me.gif"):
        with Image.open(name) as image:
            assert min(image.size) >= 64
    assert [len(row) for row in names["rows"]] == [2]
    assert names["rows"][0][0].size == (64, 64)
    assert [result.measure for result in names["evaluation"].results] == ["clip-distance"]
    assert Path("zombie.pkl").stat().st_size > 1_000_000
    assert "README.md" in {file.name for file in names["files"]}
    assert json.loads((run / "config.json").read_text())["target"] == "zombie"


def test_every_public_name_can_be_imported() -> None:
    assert {"generate", "translate", "invert", "interpolate", "evaluate", "export", "push"} <= set(zeroshift.__all__)
    missing = [name for name in zeroshift.__all__ if getattr(zeroshift, name, None) is None]
    assert not missing
