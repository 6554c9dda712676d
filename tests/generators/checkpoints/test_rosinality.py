"""Generator files: ours and rosinality's, distinguished by content; invalid files."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.conformance import fill
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import (
    export_generator,
    generator_metadata,
    load_generator,
    save_generator,
)
from zeroshift.generators.checkpoints.stylegan2_layouts import (
    stylegan2_from_nvidia,
    stylegan2_from_rosinality,
    stylegan2_to_rosinality,
)
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.generators.stylegan.stylegan3 import StyleGAN3

pytestmark = pytest.mark.slow

META, _ = fill.load(Path(fill.__file__).parent / "stylegan2_rosinality_16.npz")


@pytest.fixture(scope="module")
def published():
    """Weights under their published names, filters included, as the published program saves them."""
    weights = {
        name: torch.from_numpy(value) for name, value in fill.fill(META["shapes"]["generator"], META["seed"]).items()
    }
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps) / torch.outer(taps, taps).sum() * 4
    filters = [f"convs.{index}.conv.blur.kernel" for index in (0, 2)] + [
        f"to_rgbs.{index}.upsample.kernel" for index in (0, 1)
    ]
    return weights | dict.fromkeys(filters, kernel)


@pytest.fixture(scope="module")
def average():
    return torch.linspace(-1, 1, META["style_dim"])


@pytest.fixture(scope="module")
def generator(published, average):
    return stylegan2_from_rosinality(published, average)


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return StyleGAN2(8, z_dim=6, w_dim=4, num_classes=2, mapping_layers=2, channels={4: 4, 8: 5}, mapping_features=7)


def assert_same_weights(actual, expected):
    assert actual.config == expected.config
    expected = expected.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in actual.state_dict().items())


def test_rosinality_state_dict_round_trip_is_exact(generator, published):
    exported = stylegan2_to_rosinality(generator)
    assert exported.keys() == published.keys()
    for name, value in published.items():
        assert exported[name].shape == value.shape, name
        assert torch.equal(exported[name], value), name


def test_exported_order_is_the_published_one(generator):
    exported = [name for name in stylegan2_to_rosinality(generator) if not name.endswith(".kernel")]
    assert exported == list(META["shapes"]["generator"])


def test_exported_file_has_the_keys_of_the_published_programs(generator, average, tmp_path):
    export_generator(generator, tmp_path / "g.pt", "rosinality-pt")
    content = torch.load(tmp_path / "g.pt", weights_only=True)
    assert set(content) == {"g_ema", "latent_avg"}
    assert torch.equal(content["latent_avg"], average)
    assert_same_weights(load_generator(tmp_path / "g.pt"), generator)
    assert [path.name for path in tmp_path.iterdir()] == ["g.pt"]


@pytest.mark.parametrize("kind", ["g_ema", "training", "plain", "e4e", "legacy"])
def test_all_layouts_of_the_published_programs_are_read(kind, published, average, generator, tmp_path):
    other = {name: value + 1 for name, value in published.items() if "kernel" not in name}
    content = {
        "g_ema": {"g_ema": published, "latent_avg": average[None]},
        "training": {"g": other, "g_ema": published, "latent_avg": average, "args": argparse.Namespace(lr=0.002)},
        "plain": published | {"latent_avg": average},
        "e4e": {
            "state_dict": {"encoder.input_layer.0.weight": torch.zeros(3)}
            | {f"decoder.{name}": value for name, value in published.items()},
            "latent_avg": average.repeat(18, 1),
            "opts": {"stylegan_size": 16},
        },
        "legacy": {"g": published, "latent_avg": average},
    }[kind]
    path = tmp_path / "model.weights"  # detected by content, not by name
    torch.save(content, path, _use_new_zipfile_serialization=kind != "legacy")
    loaded = load_generator(path)
    assert not loaded.training
    torch.testing.assert_close(loaded.mapping.w_avg, average)
    assert torch.equal(loaded.synthesis.b8.conv0.weight, generator.synthesis.b8.conv0.weight)


def test_without_latent_avg_the_average_is_estimated(published):
    first, second = stylegan2_from_rosinality(published), stylegan2_from_rosinality(published)
    assert torch.equal(first.mapping.w_avg, second.mapping.w_avg)
    with torch.no_grad():
        expected = first.mapper_input(first.sample_latents(1, range(4000))).mean(dim=0)
    assert (first.mapping.w_avg - expected).abs().max() < 0.1


def test_without_noise_images_they_are_drawn(published, generator):
    old = {name: value for name, value in published.items() if not name.startswith("noises.")}
    first, second = (stylegan2_from_rosinality(old, torch.zeros(64)) for _ in range(2))
    assert torch.equal(first.synthesis.b16.conv1.noise_const, second.synthesis.b16.conv1.noise_const)
    assert first.synthesis.b16.conv1.noise_const.std() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(("size", "width", "depth", "multiplier"), [(8, 16, 2, 1), (64, 20, 3, 3)])
def test_other_sizes_of_rosinality(size, width, depth, multiplier, tmp_path):
    channels = {res: 512 if res <= 32 else 16384 // res * multiplier for res in (4, 8, 16, 32, 64) if res <= size}
    torch.manual_seed(1)
    generator = StyleGAN2(size, width, width, mapping_layers=depth, channels=channels)
    export_generator(generator, tmp_path / "g.pt", "rosinality-pt")
    assert_same_weights(load_generator(tmp_path / "g.pt"), generator)


def test_settings_that_rosinality_cannot_hold(tiny, tmp_path):
    with pytest.raises(ZeroshiftError) as caught:
        export_generator(tiny, tmp_path / "g.pt", "rosinality-pt")
    for words in ("class labels", "different widths (6 and 4)", "hidden width", "channels {4: 4, 8: 5}"):
        assert words in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_unknown_format(tiny, tmp_path):
    with pytest.raises(
        ZeroshiftError, match=r"cannot be exported as 'keras'\. Choose from: safetensors, rosinality-pt"
    ):
        export_generator(tiny, tmp_path / "g.onnx", "keras")


def test_safetensors_round_trip(tiny, tmp_path):
    save_generator(tiny, tmp_path / "g.safetensors", {"target_label": "zombie"})
    assert_same_weights(load_generator(tmp_path / "g.safetensors"), tiny)
    assert generator_metadata(tmp_path / "g.safetensors")["target_label"] == "zombie"
    export_generator(tiny, tmp_path / "again.bin")
    assert_same_weights(load_generator(tmp_path / "again.bin"), tiny)


def test_nvidia_weights_of_every_size_round_trip(tiny):
    weights = {name.replace("input.const", "b4.const"): value for name, value in tiny.state_dict().items()}
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    weights["synthesis.b8.conv0.resample_filter"] = torch.outer(taps, taps) / 64
    assert_same_weights(stylegan2_from_nvidia(weights), tiny)
    settings = {"mapping_kwargs": {"lr_multiplier": 0.1}, "synthesis_kwargs": {"conv_clamp": 256}}
    loaded = stylegan2_from_nvidia(weights, settings)
    assert (loaded.config["conv_clamp"], loaded.config["mapping_lr_mul"]) == (256, 0.1)

    with pytest.raises(ZeroshiftError, match=r"not the \[1, 3, 3, 1\] filter"):
        stylegan2_from_nvidia(weights | {"synthesis.b8.resample_filter": torch.ones(4, 4)})
    with pytest.raises(ZeroshiftError, match="architecture = 'resnet'"):
        stylegan2_from_nvidia(weights, {"synthesis_kwargs": {"architecture": "resnet"}})
    with pytest.raises(ZeroshiftError, match=r"synthesis\.b8\.skip\.weight"):
        stylegan2_from_nvidia(weights | {"synthesis.b8.skip.weight": torch.ones(2)})
    without = {name: value for name, value in weights.items() if not name.startswith("synthesis.b4.torgb")}
    with pytest.raises(ZeroshiftError, match=r"synthesis.b4.torgb.weight \(missing\)"):
        stylegan2_from_nvidia(without)


def test_nvidia_weights_without_noise_or_average(tiny):
    weights = {name.replace("input.const", "b4.const"): value for name, value in tiny.state_dict().items()}
    bare = {name: value for name, value in weights.items() if "noise" not in name and not name.endswith("w_avg")}
    loaded = stylegan2_from_nvidia(bare)
    codes = loaded.codes(loaded.sample_latents(0, [0]), torch.tensor([1]))
    with torch.no_grad():
        torch.testing.assert_close(loaded.synthesize(codes), loaded.synthesize(codes, noise_mode="none"))
        mapper_inputs = [
            loaded.mapper_input(loaded.sample_latents(1, range(2000)), torch.full((2000,), k)) for k in (0, 1)
        ]
    assert (loaded.mapping.w_avg - torch.cat(mapper_inputs).mean(dim=0)).abs().max() < 0.1


class Payload:
    """A pickle that would run a command if it were opened unsafely."""

    def __init__(self, touched):
        self.touched = touched

    def __reduce__(self):
        return Path.touch, (self.touched,)


def test_malicious_pt_is_not_executed(published, tmp_path):
    torch.save({"g_ema": published, "extra": Payload(tmp_path / "touched")}, tmp_path / "g.pt")
    with pytest.raises(ZeroshiftError, match="no code was executed"):
        load_generator(tmp_path / "g.pt")
    assert not (tmp_path / "touched").exists()


def test_bad_files(tiny, published, tmp_path):
    def refuses(content, words):
        (tmp_path / "bad.file").write_bytes(content)
        with pytest.raises(ZeroshiftError, match=words):
            load_generator(tmp_path / "bad.file")

    save_generator(tiny, tmp_path / "good.safetensors")
    torch.save({"g_ema": dict(list(published.items())[:40])}, tmp_path / "good.pt")
    ours, theirs = (tmp_path / "good.safetensors").read_bytes(), (tmp_path / "good.pt").read_bytes()
    refuses(b"", "is empty")
    refuses(b"<!DOCTYPE html><html>", "not a generator file")
    refuses(ours[: len(ours) // 2], "damaged")
    refuses(ours[:30], "damaged")
    refuses(theirs[: len(theirs) // 2], "is damaged or not a generator file: its end is missing")
    refuses(theirs, "cannot be used: These are not weights of rosinality")
    torch.save({"model": torch.zeros(3)}, tmp_path / "foreign.pt")
    refuses((tmp_path / "foreign.pt").read_bytes(), r"no StyleGAN2 or StyleGAN3 generator, but model \(a tensor\)")
    torch.save([1, 2], tmp_path / "list.pt")
    refuses((tmp_path / "list.pt").read_bytes(), "holds no StyleGAN2 or StyleGAN3 generator, but a list")

    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    refuses((tmp_path / "other.safetensors").read_bytes(), "not written by zeroshift")
    for described, words in [
        ({"architecture": "vae", "config": {}}, "unknown family .vae."),
        ({"architecture": "stylegan2", "config": {"resolution": 8}}, r"its description: x \(unknown\), .* more"),
        ({"architecture": "stylegan2", "config": {"size": 8}}, "resolution is missing"),
        ({"architecture": "stylegan2", "config": {"resolution": 12}}, "power of two"),
    ]:
        save_file({"x": torch.zeros(1)}, tmp_path / "odd.safetensors", {"zeroshift": json.dumps(described)})
        refuses((tmp_path / "odd.safetensors").read_bytes(), words)


def test_other_architectures_have_no_rosinality_export(tmp_path):
    generator = StyleGAN3(resolution=16, z_dim=8, w_dim=8, channel_base=256, channel_max=16, num_layers=4)
    save_generator(generator, tmp_path / "g.safetensors")
    assert_same_weights(load_generator(tmp_path / "g.safetensors"), generator)
    with pytest.raises(ZeroshiftError, match="stylegan3 generator cannot be exported as 'rosinality-pt'"):
        export_generator(generator, tmp_path / "g.pt", "rosinality-pt")


def test_unknown_names():
    with pytest.raises(ZeroshiftError, match="no known generator 'nobody'"):
        load_generator("nobody")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ZeroshiftError, match="no generator file"):
        load_generator(tmp_path / "none.pt")
    with pytest.raises(ZeroshiftError, match="is a folder"):
        load_generator(tmp_path)
    with pytest.raises(ZeroshiftError, match="no generator file"):
        generator_metadata(tmp_path / "none.safetensors")


def test_weights_of_wrong_shapes_or_kinds(published, average):
    wrong = {
        "conv1.conv.weight": torch.zeros(3),
        "convs.1.activate.bias": torch.zeros(7),
        "style.1.weight": torch.zeros(64, 3, 2),
    }
    for name, value in wrong.items():
        with pytest.raises(ZeroshiftError, match=name.split(".")[0] if "convs" not in name else "b8.conv1.bias"):
            stylegan2_from_rosinality(published | {name: value}, average)
    with pytest.raises(ZeroshiftError, match="latent_avg"):
        stylegan2_from_rosinality(published, torch.zeros(63))
    with pytest.raises(ZeroshiftError, match="not all arrays"):
        stylegan2_from_rosinality(published | {"conv1.noise.weight": "loud"}, average)
    with pytest.raises(ZeroshiftError, match=r"input\.input"):
        stylegan2_from_rosinality({"a": torch.zeros(1)})
    with pytest.raises(ZeroshiftError, match="extra"):
        stylegan2_from_rosinality(published | {"extra": torch.zeros(1)}, average)
