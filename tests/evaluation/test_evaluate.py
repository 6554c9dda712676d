"""`evaluate` on tiny random models: values, sharing of samples and networks, and the files it writes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.linalg import sqrtm

from tests.helpers.evaluated_runs import FEW, Counting, make_pictures, make_run
from zeroshift import RunFolder, evaluate
from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder
from zeroshift.clip.losses import normalize
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.metrics.registry import MEASURES
from zeroshift.evaluation.plan import default_network
from zeroshift.evaluation.references import References
from zeroshift.evaluation.results import read_results
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.catalogue import find_entry
from zeroshift.generators.checkpoints.files import load_generator, save_generator
from zeroshift.io.image_files import find_images
from zeroshift.io.images import eight_bit, to_uint8
from zeroshift.methods.configure import changed, preset
from zeroshift.miniature.world.domains import parse_domain
from zeroshift.miniature.world.renderer import render, sample_latents
from zeroshift.networks.base import FeatureNetwork
from zeroshift.networks.registry import load_network


@pytest.fixture
def run(tiny_generator: Path, tmp_path: Path) -> RunFolder:
    return make_run(tiny_generator, tmp_path / "run")


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "real")


def drawn(run: RunFolder, num: int, seed: int, truncation_psi: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Source and target images, sample by sample."""
    generators: list[Generator] = [load_generator(path) for path in (run.config.generator, run.generator_path)]
    with torch.no_grad():
        both = [
            torch.cat([g(g.sample_latents(seed, [i]), truncation_psi=truncation_psi) for i in range(num)])
            for g in generators
        ]
    return eight_bit(both[0]), eight_bit(both[1])


@pytest.fixture
def encoder(tiny_encoder: Path) -> Encoder:
    return load_encoder(str(tiny_encoder))


# Values


@pytest.mark.filterwarnings(FEW)
def test_values_equal_those_of_a_naive_implementation(
    run: RunFolder, real: Path, encoder: Encoder, tiny_encoder: Path
) -> None:
    network = f"open_clip:{tiny_encoder}"
    names = [f"{name}:{network}" for name in ("fd", "clip-distance", "direction", "diversity", "intra-diversity", "id")]
    results = evaluate(run, [*names, "scs"], references=References.from_folder(real), num=40, seed=3).results
    values = {result.measure: result.value for result in results}
    source, target = drawn(run, 40, seed=3, truncation_psi=0.7)
    pictures = []
    for path in sorted(real.rglob("*.png")):
        with Image.open(path) as picture:
            pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 127.5 - 1
        side = min(pixels.shape[-2:])
        top, left = ((length - side) / 2 for length in pixels.shape[-2:])
        pixels = pixels[:, :, round(top) :, round(left) :][:, :, :side, :side]
        pictures.append(eight_bit(F.interpolate(pixels, [16, 16], mode="bicubic", antialias=True)))
    with torch.no_grad():
        a, b, c = (encoder.encode_image(images) for images in (source, target, torch.cat(pictures)))
        labels = [encoder.label_feature(label) for label in ("photo", "zombie")]
    x, y = b.double().numpy(), c.double().numpy()
    root = sqrtm(np.cov(x.T) @ np.cov(y.T) + 1e-12 * np.eye(24)).real
    distance = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert values["fd"] == pytest.approx(distance, rel=1e-3)
    assert values["clip-distance"] == pytest.approx(float((1 - normalize(b) @ normalize(labels[1])).mean()), abs=1e-5)
    text = normalize(normalize(labels[1]) - normalize(labels[0]))
    assert values["direction"] == pytest.approx(float((normalize(normalize(b) - normalize(a)) @ text).mean()), abs=1e-4)
    between = 1 - normalize(b) @ normalize(b).T
    assert values["diversity"] == pytest.approx(float(between.sum() / (40 * 39)), abs=1e-5)
    nearest = (normalize(b) @ normalize(c[:10]).T).argmax(dim=1)
    clusters = [between[nearest == k][:, nearest == k] for k in range(10)]
    within = [float(each.sum() / (len(each) * (len(each) - 1))) for each in clusters if len(each) > 1]
    assert values["intra-diversity"] == pytest.approx(np.mean(within), abs=1e-5)
    assert values["id"] == pytest.approx(float(F.cosine_similarity(a, b).mean()), abs=1e-5)
    edges = load_network("sobel")
    one, other = edges(source).flatten(1), edges(target).flatten(1)
    dice = 2 * (one * other).sum(1) / (one.square().sum(1) + other.square().sum(1))
    assert values["scs"] == pytest.approx(float(dice.mean()), abs=1e-5)


def test_defaults_are_the_published_numbers_of_samples_and_the_truncation_of_the_run(run: RunFolder) -> None:
    expected = {"fid": 5000, "kid": 5000, "is": 5000, "sifid": 1000, "scs": 500, "intra-lpips": 1000, "id": 1000}
    assert {name: MEASURES[name].samples for name in expected} == expected
    assert [name for name, measure in MEASURES.items() if measure.references == 10] == [
        "sifid", "intra-diversity", "intra-lpips",
    ]  # fmt: skip
    (result,) = evaluate(run, ["scs"]).results
    assert (result.samples, result.truncation_psi, result.seed) == (500, 0.7, 0)
    (first,) = evaluate(run, ["scs"], num=20).results
    (whole,) = evaluate(run, ["scs"], num=20, truncation_psi=1.0).results
    assert first.value != whole.value
    assert whole.truncation_psi == 1.0


@pytest.mark.filterwarnings(FEW)
def test_the_miniature_world_is_measured_by_its_evaluator_and_by_edges_only(tmp_path: Path) -> None:
    run = make_run(Path("miniature"), tmp_path / "run", truncation_psi=1.0)
    result = evaluate(run, num=10, references=References("truth", torch.rand(12, 3, 64, 64) * 2 - 1))
    names = [(each.measure, each.network, each.truncation_psi) for each in result.results]
    assert [name for name, *_ in names] == [
        "fd", "kd", "clip-distance", "direction", "diversity", "intra-diversity", "scs",
    ]  # fmt: skip
    assert {network for _, network, _ in names} == {"miniature-judge", "sobel"}
    assert {truncation for *_, truncation in names} == {1.0}
    assert set(result.left_out) == {"fid", "kid", "is", "sifid", "pairwise-lpips", "intra-lpips", "id"}
    assert default_network(MEASURES["fd"], find_entry("ffhq")) == "dinov2"
    for name in ("miniature-diffusion", "miniature-autoencoder"):
        assert default_network(MEASURES["fd"], find_entry(name)) == "miniature-judge"


@pytest.mark.slow
@pytest.mark.filterwarnings(FEW)
def test_a_generator_with_an_evaluator_is_measured_by_it_and_compared_with_its_truth(tmp_path: Path) -> None:
    config = preset("miniature-diffusion", "zombie", generator="miniature-diffusion", device="cpu")
    run = RunFolder.open(tmp_path, changed(config, {"sampling.noise_steps": 1, "sampling.steps": 1}))
    save_generator(load_generator("miniature-diffusion"), run.generator_path)
    references = References.from_truth(run.config, 10, seed=0)
    people = [render(sample_latents(0, range(10, 20)), parse_domain("zombie"))]
    assert references is not None
    assert torch.equal(references.batch(0, 10, 64), eight_bit(people[0]))
    results = evaluate(run, references=references, num=10).results
    assert [result.measure for result in results] == [
        "fd", "kd", "clip-distance", "direction", "diversity", "intra-diversity", "scs",
    ]  # fmt: skip
    assert {(result.network, result.samples) for result in results} == {("miniature-judge", 10), ("sobel", 10)}


# Sharing


@pytest.mark.filterwarnings(FEW)
def test_samples_are_drawn_once_and_shared(run: RunFolder, real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, drawn_rows = Counting(), []
    synthesize = type(load_generator(run.generator_path)).synthesize

    def counted(self: Generator, codes: torch.Tensor, **options: object) -> torch.Tensor:
        drawn_rows.append(len(codes))
        return synthesize(self, codes, **options)

    monkeypatch.setattr("zeroshift.evaluation.plan.load_network", lambda name, device: network)
    monkeypatch.setattr(type(load_generator(run.generator_path)), "synthesize", counted)
    references = References.from_folder(real)
    results = evaluate(run, ["fid", "kid", "is", "diversity", "id"], references=references, num=30).results
    assert sum(drawn_rows) == 2 * 30, "source and target"
    # each of the three network names gets its own features of both sides, and one of them those of the references
    assert sum(network.batches) == 3 * 2 * 30 + len(references)
    assert [result.measure for result in results] == ["fid", "kid", "is", "diversity", "id"]
    assert {result.measure: (result.samples, result.references) for result in results} == {
        "fid": (30, 14), "kid": (30, 14), "is": (30, 0), "diversity": (30, 0), "id": (30, 0),
    }  # fmt: skip
    assert {result.measure: result.spread is not None for result in results} == {
        "fid": False, "kid": True, "is": True, "diversity": False, "id": False,
    }  # fmt: skip
    drawn_rows.clear()
    network.batches.clear()
    (again,) = evaluate(run, ["fid"], references=references, num=30).results
    assert again.value == results[0].value
    assert again.source_value == results[0].source_value
    assert sum(drawn_rows) == 2 * 30, "the source, too: its value stands beside each result"
    assert sum(network.batches) == 2 * 30, "features of reference images are computed once for all runs"


def test_batches_are_halved_until_they_fit_into_memory(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    values = []
    for most in (1000, 7):
        network = Counting(most)
        monkeypatch.setattr("zeroshift.evaluation.plan.load_network", lambda name, device, network=network: network)
        values.append(evaluate(run, ["diversity"], num=30).results[0].value)
        assert max(network.batches) == (16 if most == 1000 else 4)
        assert sum(network.batches) == 2 * 30, "source and target"
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    monkeypatch.setattr("zeroshift.evaluation.plan.load_network", lambda name, device: Counting(most=0))
    with pytest.raises(RuntimeError, match="allocate"):
        evaluate(run, ["diversity"], num=30)


def test_a_measure_of_fewer_samples_uses_the_first_ones(run: RunFolder, tiny_encoder: Path) -> None:
    """A measure of 500 samples has the same value if another measure uses more."""
    alone = evaluate(run, ["scs"]).results[0]
    name = f"clip-distance:open_clip:{tiny_encoder}"
    beside = {result.measure: result for result in evaluate(run, [name, "scs"]).results}
    assert (beside["clip-distance"].samples, beside["scs"].samples) == (1000, 500)
    assert beside["scs"].value == pytest.approx(alone.value, abs=1e-6)


# Written files


def test_results_are_appended_to_files(run: RunFolder, tiny_encoder: Path) -> None:
    name = f"diversity:open_clip:{tiny_encoder}"
    for seed in (0, 1, 1):
        evaluate(run, [name, "scs"], num=12, seed=seed)
    lines = (run.path / "metrics-diversity.jsonl").read_text().splitlines()
    assert len(lines) == 3
    record = json.loads(lines[0])
    assert record == {
        "measure": "diversity", "value": record["value"], "spread": None, "better": "higher",
        "protocol": "diversity_all_pairs", "network": f"open_clip:{tiny_encoder}", "samples": 12, "references": 0,
        "reference": "", "seed": 0, "truncation_psi": 0.7, "time": record["time"],
        "steps": run.config.adapt.steps, "source_value": record["source_value"], "truth_value": None,
    }  # fmt: skip
    assert 0 < record["value"] < 2
    assert 0 < record["source_value"] < 2
    (same,) = (json.loads(line) for line in (run.path / "metrics-scs.jsonl").read_text().splitlines()[:1])
    assert same["source_value"] == pytest.approx(1), "the source has the structure of the source"
    kept = read_results(run)
    assert [(result.measure, result.seed) for result in kept] == [
        ("diversity", 0), ("diversity", 1), ("scs", 0), ("scs", 1),
    ]  # fmt: skip
    assert run.records() == [], "metrics.jsonl belongs to the training"


def test_an_undefined_value_is_recorded_as_null(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """No two images share a reference, so there are no pairs and no value; the JSON stays valid."""
    monkeypatch.setattr("zeroshift.evaluation.plan.load_network", lambda name, device: Counting())
    monkeypatch.setattr("zeroshift.evaluation.metrics.protocols.intra_cluster_distance", lambda *_, **__: math.nan)
    (result,) = evaluate(run, ["intra-diversity"], references=References("two", torch.rand(2, 3, 9, 9)), num=10).results
    assert result.value is None
    assert "NaN" not in (run.path / "metrics-intra-diversity.jsonl").read_text()


def test_measures_that_are_not_available_are_left_out_with_the_reason(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def only_edges(name: str, device: torch.device) -> FeatureNetwork:
        tried.append(name)
        if name != "sobel":
            raise ZeroshiftError(f"{name} cannot be reached.")
        return load_network(name, device)

    monkeypatch.setattr("zeroshift.evaluation.plan.load_network", only_edges)
    result = evaluate(run, num=10)
    assert [each.measure for each in result.results] == ["scs"]
    assert result.left_out["is"] == "inception cannot be reached."
    assert result.left_out["fid"].startswith("Real images")
    assert len(tried) == len(set(tried)), "a network that cannot be loaded is tried once"
    with pytest.raises(ZeroshiftError, match=r"is: inception cannot be reached\."):
        evaluate(run, ["is"], num=10)


def test_a_measure_named_twice_is_computed_once(run: RunFolder) -> None:
    results = evaluate(run, ["scs", "scs:sobel", "scs"], num=10).results
    assert [result.measure for result in results] == ["scs"]
    assert len((run.path / "metrics-scs.jsonl").read_text().splitlines()) == 1


# Reference images


def test_reference_images_have_a_fixed_order(real: Path) -> None:
    assert [path.name for path in find_images(real)][:3] == ["00.png", "02.png", "04.png"]
    references = References.from_folder(real)
    whole = references.batch(0, 5, 16)
    assert torch.equal(whole[3:], references.batch(3, 5, 16))
    assert whole.shape == (5, 3, 16, 16)
    levels = torch.from_numpy(to_uint8(whole)).permute(0, 3, 1, 2)
    assert torch.allclose(levels / 127.5 - 1, whole, atol=1e-6), "on the levels of a file"
