"""The recipe of the encoder for photos, and the shipped encoder."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.inversion.loading import load_inversion_encoder
from zeroshift.miniature.exams.pixels import psnr
from zeroshift.miniature.networks.photo_encoder import PhotoEncoder, load_photo_encoder
from zeroshift.miniature.training import photo_encoder
from zeroshift.miniature.training.portraits import Portraits
from zeroshift.miniature.world.renderer import render, sample_latents


@pytest.mark.slow
def test_training_resumes_bit_for_bit_and_improves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"channels": [8, 8, 8, 8], "num_ws": 10, "w_dim": 128}
    monkeypatch.setattr(photo_encoder, "PHOTO_ENCODER_CONFIG", small)
    monkeypatch.setattr("zeroshift.miniature.networks.photo_encoder.PHOTO_ENCODER_CONFIG", small)
    monkeypatch.setattr(Portraits, "BLOCK", 8)
    monkeypatch.setattr(Portraits, "FIRST", 2)
    monkeypatch.setattr(photo_encoder, "EXAM_PEOPLE", 4)

    def train(folder: str, **options: float) -> int:
        return photo_encoder.train_photo_encoder(
            tmp_path / folder, steps=4, batch=4, image_batch=2, weights=tmp_path / f"{folder}.safetensors", **options
        )

    assert train("whole") == 4
    assert [train("parts", minutes=0) for _ in range(2)] == [1, 2]
    assert train("parts") == 4
    whole, parts = load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "parts.safetensors")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    encoder = load_photo_encoder(tmp_path / "whole.safetensors")
    generator = load_generator("miniature")
    torch.testing.assert_close(encoder.mean, generator.mapping.w_avg, atol=1e-2, rtol=1e-2)
    with pytest.raises(ZeroshiftError, match="another kind of model"):
        load_photo_encoder(Path(photo_encoder.weights_path("probe")))


def test_the_shipped_encoder_draws_people_it_never_saw() -> None:
    encoder = load_inversion_encoder("miniature")
    assert isinstance(encoder, PhotoEncoder)
    assert load_inversion_encoder("miniature", "none") is None
    assert load_inversion_encoder("miniature-diffusion") is None
    generator = load_generator("miniature").eval()
    encoder.require_fit(generator)
    photos = render(sample_latents(1_000_003, range(500, 516)))
    with torch.inference_mode():
        codes = encoder(photos, generator)
        images = generator.synthesize(codes)
    assert codes.shape == (16, 10, 128)
    assert psnr(images, photos) > 26
    assert codes.std(dim=1).mean() < 0.3, "close to W, whose deviation is 1"


def test_another_generator_is_refused() -> None:
    encoder = PhotoEncoder([8, 8, 8, 8], 10, 128)
    other = StyleGAN2(32, 8, 128, 0, 1, channels={4: 4, 8: 4, 16: 4, 32: 4})
    with pytest.raises(ZeroshiftError, match="gives 10 styles of width 128 from images of 64 pixels"):
        encoder.require_fit(other)
