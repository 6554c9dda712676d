"""Published inversion encoders: codes as recorded from the published programs, and files that are refused."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from tests.conformance.fill import fill, load
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.checkpoints.stylegan2_layouts import stylegan2_to_rosinality
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.inversion.encoder_files import encoder_from_weights, read_encoder
from zeroshift.inversion.encoders import FlatEncoder

RECORDINGS = Path(__file__).parents[1] / "conformance"
KINDS = {
    "e4e_32": ("Encoder4Editing", 3), "psp_32": ("GradualStyleEncoder", 3),
    "restyle_e4e_8": ("ProgressiveBackboneEncoder", 6), "restyle_psp_8": ("BackboneEncoder", 6),
}  # fmt: skip


def recorded(name: str) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The weights of a recorded encoder, its input [1, C, 256, 256] and its codes [1, styles, 512]."""
    meta, arrays = load(RECORDINGS / f"encoder_{name}.npz")
    weights = {
        key: torch.from_numpy(np.asarray(value)) for key, value in fill(meta["shapes"]["encoder"], meta["seed"]).items()
    }
    image = fill({"image": ([1, KINDS[name][1], 256, 256], "weight")}, meta["seed"])["image"].clip(-1, 1)
    return weights, torch.from_numpy(image), torch.from_numpy(arrays["codes"])


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_codes_are_those_of_the_published_program(tmp_path: Path, name: str) -> None:
    weights, image, codes = recorded(name)
    path = tmp_path / "encoder.pt"
    save(path, weights, torch.zeros(512), argparse.Namespace(encoder_type=KINDS[name][0]))
    encoder = read_encoder(path)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.network(image), codes, rtol=1e-4, atol=1e-4)


def save(path: Path, encoder: dict[str, Tensor], latent_avg: Tensor | None, options: Any, **others: Any) -> None:
    state = {f"encoder.{name}": value for name, value in encoder.items()} | others
    torch.save({"state_dict": state, "latent_avg": latent_avg, "opts": options}, path)


def resnet34_weights(num_styles: int) -> dict[str, Tensor]:
    """Weights of ReStyle's ResNet34 under the published names."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = FlatEncoder(num_styles, "absolute", "resnet34")
    return {name.removeprefix("backbone."): value for name, value in network.state_dict().items()}


def generator_of(num_ws: int) -> StyleGAN2:
    return StyleGAN2(2 ** (num_ws // 2 + 1), w_dim=512, z_dim=8, mapping_layers=1, channels=dict.fromkeys(
        [2**power for power in range(2, num_ws // 2 + 2)], 4
    )).eval().requires_grad_(False)  # fmt: skip


@pytest.mark.slow
def test_resnet34_is_torchvisions_without_pooling(tmp_path: Path) -> None:
    """The body holds the blocks of torchvision's layer1 to layer4 in one list; heads follow the last map."""
    weights = resnet34_weights(4)
    reference = torchvision.models.resnet34(weights=None).eval()
    blocks = [block for layer in ("layer1", "layer2", "layer3", "layer4") for block in getattr(reference, layer)]
    for index, block in enumerate(blocks):
        prefix = f"body.{index}."
        state = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        block.load_state_dict(state)
    encoder = encoder_from_weights(weights, None, "ReStyle pSp", "x")
    network: Any = encoder.network
    images = torch.randn(1, 6, 256, 256, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        start = network.backbone
        x = start.relu(start.bn1(start.conv1(images)))
        assert x.shape[-1] == 128
        for block in blocks:
            x = block(x)
        torch.testing.assert_close(network(images)[:, 2], network.styles[2](x), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_refinement_sees_the_average_image_first_and_then_its_own(tmp_path: Path) -> None:
    generator, average = generator_of(4), torch.randn(512, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "restyle_psp_small.pt"
    save(path, resnet34_weights(4), average.repeat(4, 1), None)
    encoder = read_encoder(path)
    seen: list[Tensor] = []
    offsets: list[Tensor] = []
    forward = encoder.network.forward

    def watched(images: Tensor) -> Tensor:
        seen.append(images)
        offsets.append(forward(images))
        return offsets[-1]

    encoder.network.forward = watched  # type: ignore[method-assign]
    photos = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.inference_mode():
        codes = encoder(photos, generator)
        mean_image = generator.synthesize(average.expand(2, 4, -1))
    assert len(seen) == 5
    torch.testing.assert_close(
        seen[0][:, 3:, ::64, ::64], F.interpolate(mean_image, 256, mode="bilinear")[..., ::64, ::64]
    )
    assert all(torch.equal(one[:, :3], seen[0][:, :3]) for one in seen)
    assert not torch.equal(seen[1][:, 3:], seen[0][:, 3:])
    total = average.expand(2, 4, -1) + sum(offsets)
    torch.testing.assert_close(codes, total, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_the_decoder_in_an_encoder_file_is_a_generator(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = StyleGAN2(8).eval()
    decoder = {f"decoder.{name}": value for name, value in stylegan2_to_rosinality(generator).items()}
    path = tmp_path / "e4e_small.pt"
    average = torch.randn(4, 512, generator=torch.Generator().manual_seed(1))
    save(path, resnet34_weights(4), average, argparse.Namespace(encoder_type="ResNetBackboneEncoder"), **decoder)
    loaded = load_generator(path)
    codes = generator.codes(generator.sample_latents(0, range(1)))
    torch.testing.assert_close(loaded.synthesize(codes), generator.synthesize(codes))
    torch.testing.assert_close(loaded.mapping.w_avg, average.mean(dim=0))
    assert read_encoder(path).name == "ReStyle pSp (e4e_small.pt)", "the file says what it is, not its name"


@pytest.mark.slow
def test_what_an_encoder_cannot_be_used_for_is_said(tmp_path: Path) -> None:
    weights = resnet34_weights(4)
    encoder = encoder_from_weights(weights, torch.zeros(512), "ReStyle e4e", "x")
    with pytest.raises(
        ZeroshiftError, match=r"4 styles of width 512, for a StyleGAN2 of 8 pixels; .* needs 6 of width"
    ):
        encoder.require_fit(generator_of(6))
    with pytest.raises(ZeroshiftError, match="does not tell whether it is of pSp or e4e"):
        encoder_from_weights(weights, None, None, "models/encoder.pt")
    assert encoder_from_weights(weights, None, None, "models/restyle_e4e_cars.pt").name.startswith("ReStyle e4e")
    with pytest.raises(ZeroshiftError, match=r"latent_avg .* shape \[7\]"):
        encoder_from_weights(weights, torch.zeros(7), "ReStyle e4e", "x")
    with pytest.raises(ZeroshiftError, match="weights of another model"):
        encoder_from_weights({**weights, "bn1.weight": torch.zeros(3)}, None, "ReStyle e4e", "x")
    with pytest.raises(ZeroshiftError, match="its weights have other names"):
        encoder_from_weights({"styles.0.x": torch.zeros(1)}, None, "e4e", "x")
    path = tmp_path / "w.pt"
    save(path, {"conv1.weight": torch.zeros(1)}, None, {"encoder_type": "BackboneEncoderUsingLastLayerIntoW"})
    with pytest.raises(ZeroshiftError, match="holds a 'BackboneEncoderUsingLastLayerIntoW'"):
        read_encoder(path)
    torch.save({"g_ema": {}}, path)
    with pytest.raises(ZeroshiftError, match="holds no inversion encoder"):
        read_encoder(path)
