"""Guidance encoder, held-out evaluator and probe: files, and texts encoded at their own length."""

import pytest
import torch
from safetensors.torch import save_file

from zeroshift.clip.loading import load_encoder
from zeroshift.errors import ZeroshiftError
from zeroshift.miniature.networks.encoders import (
    EVALUATOR_CONFIG,
    PROBE_CONFIG,
    Evaluator,
    Probe,
    build_guidance_encoder,
    encode_tokens,
    load_evaluator,
    load_probe,
    save_encoder,
    save_probe,
    tokenize,
)
from zeroshift.miniature.training.optimizers import seeded
from zeroshift.miniature.world.captions import TEMPLATES, known_labels, known_words
from zeroshift.miniature.world.factors import FACTORS

TEXTS = ["a zombie", "a pencil sketch of a smiling clown with round glasses, looking left", ""]


@pytest.fixture(scope="module")
def guidance():
    return seeded(build_guidance_encoder, 0).eval()


@pytest.fixture(scope="module")
def evaluator():
    return seeded(lambda: Evaluator(**EVALUATOR_CONFIG), 0).eval()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["guidance", "evaluator"])
def test_texts_truncated_to_the_longest_one_encode_the_same(name, request):
    model, tokens = request.getfixturevalue(name), tokenize(TEXTS)
    weight = getattr(model, "text", model).token_embedding.weight
    fast, naive = encode_tokens(model, tokens), model.encode_text(tokens)
    torch.testing.assert_close(fast, naive, atol=1e-5, rtol=1e-4)
    gradients = [torch.autograd.grad(out.square().sum(), weight)[0] for out in (fast, naive)]
    torch.testing.assert_close(*gradients, atol=2e-4, rtol=1e-3)


def test_a_guidance_encoder_file_opens_like_any_encoder(guidance, tmp_path):
    save_encoder(guidance, tmp_path / "guide.safetensors")
    encoder = load_encoder(str(tmp_path / "guide.safetensors"))
    assert (encoder.image_size, encoder.embed_dim, encoder.templates) == ((64, 64), 128, TEMPLATES)
    assert encoder.known_words == set(known_words())
    assert tuple(encoder.known_labels) == known_labels()
    images = torch.rand(2, 3, 64, 64, generator=generator()) * 2 - 1
    near = {"atol": 0.02, "rtol": 0.02}  # the file is in half precision
    torch.testing.assert_close(encoder.encode_image(images), guidance.encode_image(images).detach(), **near)
    torch.testing.assert_close(encoder.encode_text(TEXTS), guidance.encode_text(tokenize(TEXTS)).detach(), **near)
    assert (tmp_path / "guide.safetensors").stat().st_size < 20e6


def test_an_evaluator_file_has_the_same_interface(evaluator, tmp_path):
    save_encoder(evaluator, tmp_path / "judge.safetensors")
    encoder = load_evaluator(tmp_path / "judge.safetensors")
    images = torch.rand(2, 3, 64, 64, generator=generator()) * 2 - 1
    near = {"atol": 0.02, "rtol": 0.02}
    torch.testing.assert_close(encoder.encode_image(images), evaluator.encode_image(images).detach(), **near)
    torch.testing.assert_close(encoder.encode_text(TEXTS), evaluator.encode_text(tokenize(TEXTS)).detach(), **near)
    assert encoder.label_feature("zombie").shape == (128,)
    assert not any(p.requires_grad for p in encoder.parameters())


def test_probe_reads_every_factor(tmp_path):
    probe = seeded(lambda: Probe(**PROBE_CONFIG), 0).eval()
    save_probe(probe, tmp_path / "probe.safetensors")
    read = load_probe(tmp_path / "probe.safetensors")(torch.zeros(2, 3, 64, 64))
    assert list(read) == [factor.name for factor in FACTORS]
    for factor in FACTORS:
        assert read[factor.name].shape == ((2, len(factor.classes)) if factor.is_class else (2,))


def test_broken_files_and_files_of_other_models_are_refused(evaluator, tmp_path):
    (tmp_path / "rubbish").write_bytes(b"not a model")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    for load in (load_evaluator, load_probe):
        with pytest.raises(ZeroshiftError, match="not a complete safetensors file"):
            load(tmp_path / "rubbish")
        with pytest.raises(ZeroshiftError, match="There is no weights file"):
            load(tmp_path / "missing")
        with pytest.raises(ZeroshiftError, match="another kind"):
            load(tmp_path / "foreign")
