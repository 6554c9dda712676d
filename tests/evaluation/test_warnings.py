"""Warnings, progress and missing values of `evaluate`."""

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import torch

from tests.helpers.evaluated_runs import FEW, Counting, make_pictures, make_run
from zeroshift import RunFolder, evaluate
from zeroshift.config.settings import AdaptStage
from zeroshift.errors import NotFiniteError, ZeroshiftError
from zeroshift.evaluation.references import References

T = TypeVar("T")


@pytest.fixture
def run(tiny_generator: Path, tmp_path: Path) -> RunFolder:
    return make_run(tiny_generator, tmp_path / "run")


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "real")


@pytest.mark.filterwarnings(FEW)
@pytest.mark.parametrize(
    ("fields", "network"),
    [
        ({"encoders": ("ViT-B-32/openai",)}, "open_clip:ViT-B-32/openai"),
        ({"encoders": ("ViT-L-14/openai", "ViT-B-32-quickgelu/openai")}, "open_clip:ViT-B-32/openai"),
        ({"encoders": ("ViT-B-32/openai",)}, "open_clip:ViT-B-32-quickgelu/openai"),
        ({"adapt": AdaptStage(identity_weight=1.0, identity_network="face")}, "face"),
    ],
)
def test_measuring_with_a_network_that_guided_the_run_causes_a_warning(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object], network: str
) -> None:
    guided = RunFolder(run.path, replace(run.config, **fields))
    monkeypatch.setattr("zeroshift.evaluation.plan.load_network", lambda name, device: Counting())
    names = [f"{name}:{network}" for name in ("fd", "kd", "diversity", "id")]
    with pytest.warns(UserWarning, match="guided this run") as warned:
        evaluate(guided, names, references=References("some", torch.rand(12, 3, 16, 16)), num=10)
    messages = [str(each.message) for each in warned if "guided" in str(each.message)]
    assert len(messages) == 1, "one warning per network"
    assert messages[0].startswith(f"fd, kd, diversity, id: measured by {network}, which guided this run")


@pytest.mark.parametrize(
    "fields",
    [
        {"encoders": ("ViT-B-32/laion2b_s34b_b79k",)},
        {"encoders": ("ViT-B-16/openai",)},
        {"encoders": ("RN50/openai",), "adapt": AdaptStage(identity_network="open_clip:ViT-B-32/openai")},
    ],
)
def test_measuring_with_other_networks_causes_no_warning(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object]
) -> None:
    other = RunFolder(run.path, replace(run.config, **fields))
    monkeypatch.setattr("zeroshift.evaluation.plan.load_network", lambda name, device: Counting())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(other, ["diversity:open_clip:ViT-B-32/openai"], num=10)


def test_too_few_images_for_a_measure_cause_a_warning(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting has 3 features: 4 images are enough for a Fréchet distance, 3 are not."""
    monkeypatch.setattr("zeroshift.evaluation.plan.load_network", lambda name, device: Counting())

    def warned(metrics: list[str], references: int, num: int) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            evaluate(run, metrics, references=References("some", torch.rand(references, 3, 16, 16)), num=num)
        return [str(each.message) for each in caught]

    assert warned(["fd", "kd", "diversity"], references=4, num=10) == []
    (few,) = warned(["fd", "kd", "diversity"], references=3, num=10)
    assert few.startswith("fd by dinov2: 10 samples and 3 reference images are too few for 3 features")
    (few,) = warned(["is"], references=3, num=990)
    assert few.startswith("is by inception: an Inception Score of 990 samples is not meaningful: it cannot exceed 99")
    assert warned(["is"], references=3, num=1000) == []


@pytest.mark.filterwarnings(FEW)
def test_references_are_read_before_samples_are_drawn(
    run: RunFolder, real: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "zeroshift.evaluation.evaluate.sample_features", lambda *_, **__: pytest.fail("samples were drawn")
    )
    (real / "1" / "13.png").write_bytes(b"no picture")
    with pytest.raises(ZeroshiftError, match=r"13\.png cannot be read"):
        evaluate(run, [f"fd:open_clip:{tiny_encoder}"], references=References.from_folder(real))


@pytest.mark.filterwarnings(FEW)
def test_progress_has_totals_and_one_bar_at_a_time(run: RunFolder, real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[tuple[str, int, int]] = []
    moving: list[str] = []

    def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
        assert not moving, "only one bar at a time"
        moving.append(what)
        count = 0
        for count, item in enumerate(items, start=1):  # noqa: B007
            yield item
        bars.append((what, count, total))
        moving.clear()

    monkeypatch.setattr("zeroshift.evaluation.plan.load_network", lambda name, device: Counting())
    names = ["pairwise-lpips", "fd", "intra-lpips", "diversity"]
    results = evaluate(run, names, references=References.from_folder(real), num=20, track=track).results
    assert bars == [
        ("Reference images by dinov2", 1, 1),
        ("Reference images by lpips", 1, 1),
        ("Samples", 1, 1),
        ("Measuring", 2, 2),
        *2 * [("Distances between images", 3, 3)],  # the adapted generator, then the source
        *2 * [("Distances between images", 2, 2), ("Distances between images", 3, 3)],
    ]
    assert [result.measure for result in results] == names


@pytest.mark.filterwarnings(FEW)
def test_a_run_that_has_diverged_is_not_measured(run: RunFolder, real: Path, tiny_generator: Path) -> None:
    diverged = make_run(tiny_generator, run.path.parent / "diverged", scale=math.nan)
    with pytest.raises(NotFiniteError, match="has weights that are not finite numbers"):
        evaluate(diverged, ["scs"], num=10)
    overflowing = make_run(tiny_generator, run.path.parent / "overflowing", scale=1e30)
    with pytest.raises(NotFiniteError, match="The adapted generator makes images with values that are not finite"):
        evaluate(overflowing, ["scs"], num=10)
    assert not list(diverged.path.glob("metrics-*.jsonl")) + list(overflowing.path.glob("metrics-*.jsonl"))


@pytest.mark.filterwarnings(FEW)
def test_a_network_whose_features_are_not_finite_gives_no_value(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Counting):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) * math.nan

    monkeypatch.setattr("zeroshift.evaluation.plan.load_network", lambda name, device: Broken())
    with pytest.warns(UserWarning, match="no values by lpips, because its features"):
        (result,) = evaluate(run, ["pairwise-lpips"], num=10).results
    assert result.value is None


def test_an_undefined_spread_is_recorded_as_null(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeroshift.evaluation.plan.load_network", lambda name, device: Counting())
    monkeypatch.setattr("zeroshift.evaluation.metrics.protocols.inception_score", lambda *_, **__: (1.5, math.nan))
    (result,) = evaluate(run, ["is"], num=1000).results
    assert (result.value, result.spread) == (1.5, None)
    assert "NaN" not in (run.path / "metrics-is.jsonl").read_text()
