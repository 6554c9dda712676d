"""What a notebook shows of results, runs and pictures."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zeroshift
from tests.helpers.evaluated_runs import FEW, make_run
from tests.helpers.executors import Here
from zeroshift.errors import ZeroshiftError
from zeroshift.inversion.inverted import Inverted

TINY = {"adapt.batch_size": 2, "adapt.augmentations": 0, "adapt.layer_batch_size": 1, "device": "cpu"}


def embedded(html: str) -> Image.Image:
    (data,) = re.findall(r'src="data:image/\w+;base64,([^"]+)"', html)
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_result_shows_both_generators(tiny_generator: Path, tiny_encoder: Path) -> None:
    config = zeroshift.default_config(str(tiny_generator), method="nada")
    config = zeroshift.changed(config, {**TINY, "target": "zombie", "encoders": (str(tiny_encoder),), "steps": 1})
    result = zeroshift.adapt(config)
    assert repr(result).startswith("<AdaptResult: photo to zombie, nada, 1 steps, loss ")
    with embedded(result._repr_html_()) as picture:
        assert picture.width > 8 * 16
        assert picture.height > 2 * 16
    source, adapted = result.images(3)
    assert source.shape == adapted.shape == (3, 3, 16, 16)
    (batch,) = zeroshift.generate([result.source, result.generator], 3, truncation_psi=config.truncation_psi)
    torch.testing.assert_close(adapted, batch[1])


def test_a_run_shows_its_pictures_once_they_exist(tiny_generator: Path, tmp_path: Path) -> None:
    run = make_run(tiny_generator, tmp_path / "<run>")
    assert run._repr_html_() is None
    zeroshift.write_report(run)
    html = run._repr_html_()
    assert html is not None
    assert "&lt;run&gt;: photo to zombie, ipl" in html
    with embedded(html) as picture, Image.open(run.pairs_path) as pairs:
        assert picture.size == pairs.size
        difference = np.asarray(picture.convert("RGB"), float) - np.asarray(pairs.convert("RGB"), float)
        assert np.abs(difference).mean() < 4


@pytest.mark.filterwarnings(FEW)
def test_an_evaluation_is_a_table(tiny_generator: Path, tmp_path: Path) -> None:
    run = make_run(tiny_generator, tmp_path / "run")
    table = zeroshift.evaluate(run, ["scs", "fid"], num=10, skip_unavailable=True)._repr_markdown_()
    head, rule, row, *rest = table.splitlines()
    assert head == "| measure | value | source | network | samples | protocol |"
    assert rule.count("---") == 6
    assert re.fullmatch(r"\| scs ↑ \| [\d.]+ \| 1.000 \| sobel \| 10 \| \w+ \|", row)
    assert any(line.startswith("Left out: fid. ") for line in rest)


def test_an_inverted_photo_is_one_line() -> None:
    photo = Inverted(torch.zeros(14, 32), {"weight": torch.zeros(1000)}, {"psnr": 36.1})
    assert repr(photo) == "<Inverted: codes [14, 32], 1 changes, PSNR 36.1 dB>"
    assert repr(Inverted(torch.zeros(2))) == "<Inverted: codes [2], 0 changes>"


def test_pictures_of_all_kinds(tmp_path: Path) -> None:
    red = torch.tensor([1.0, -1, -1])[:, None, None].expand(3, 8, 8)
    file = zeroshift.save_image(tmp_path / "red.png", red)
    sheet = zeroshift.picture([red, zeroshift.picture(red), file, red[None]], columns=2)
    assert sheet.size == (17, 17)
    assert {sheet.getpixel(place) for place in ((0, 0), (16, 0), (0, 16), (16, 16))} == {(255, 0, 0)}
    assert zeroshift.picture(red, scale=3).size == (24, 24)
    rows = zeroshift.picture({"source": red, "target": [red]})
    assert rows.width > 8
    assert rows.height > 2 * 8
    for wrong, message in (
        (torch.zeros(8, 8), "must be a tensor"),
        ([], "at least one image"),
        ([red, torch.zeros(3, 4, 4)], "all of one size"),
        ({"a": red, "b": torch.zeros(2, 3, 8, 8)}, "the same number"),
        ({}, "the same number"),
        (tmp_path / "none.png", "There is no image"),
    ):
        with pytest.raises(ZeroshiftError, match=message):
            zeroshift.picture(wrong)


@pytest.mark.slow
@pytest.mark.filterwarnings(FEW)
def test_methods_are_compared_from_python(tiny_generator: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    done: list[int] = []

    def track(items: Iterator[object], total: int, what: str) -> Iterator[object]:
        done.append(total)
        return items

    for _ in range(2):
        result = zeroshift.compare_methods(
            tiny_generator, "zombie", ["nada", "nada:adapt.lr=0.01"], seeds=[0, 1], out=tmp_path / "paper",
            changes={**TINY, "adapt.steps": 1, "encoders": (str(tiny_encoder),)}, metrics=["scs"], num=12, track=track,
            executor=Here(),
        )  # fmt: skip
    assert done == [4, 0], "finished trials are kept"
    assert repr(result) == f"<Comparison: 4 of 4 trials, {tmp_path / 'paper' / 'benchmark.md'}>"
    assert r"\toprule" in result.latex
    table = result._repr_markdown_()
    assert "| nada:adapt.lr=0.01 | 2 |" in table
    assert "## Comparison with nada" in table
    assert result.picture().size == result.picture("zombie").size
    with pytest.raises(ZeroshiftError, match="'elf' is not among the targets zombie"):
        result.picture("elf")
