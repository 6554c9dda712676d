"""The contrastive recipe: losses, and a training that resumes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from zeroshift.errors import ZeroshiftError
from zeroshift.miniature.networks.encoders import (
    EVALUATOR_CONFIG,
    Evaluator,
    build_guidance_encoder,
    load_weights,
    save_encoder,
)
from zeroshift.miniature.training.augment import Augmentation
from zeroshift.miniature.training.contrastive import ContrastiveSettings, _gray, contrastive_loss, train_contrastive
from zeroshift.miniature.training.data import Blocks
from zeroshift.miniature.training.optimizers import seeded
from zeroshift.miniature.world.domains import SOURCE


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def no_exams(monkeypatch):
    monkeypatch.setattr("zeroshift.miniature.training.contrastive.DomainExam.make", lambda **_: None)
    monkeypatch.setattr("zeroshift.miniature.training.contrastive.domain_report", lambda *_: {"seen": 0.0})
    monkeypatch.setattr(
        "zeroshift.miniature.training.contrastive.retrieval_report", lambda *_, **__: {SOURCE.full_label: 0.0}
    )


SETTINGS = ContrastiveSettings(
    Augmentation(noise=0.5, noise_level=0.1), seed=1, steps=4, warm_steps=1, groups=1, people=2, captioned=6,
    adversarial=2, gray=2,
)  # fmt: skip


def test_contrastive_loss_is_lower_for_the_true_pairs():
    features = F.normalize(torch.randn(8, 16, generator=generator()), dim=-1)
    scale = torch.tensor(50.0)
    assert contrastive_loss(features, features, scale) < contrastive_loss(features, features.roll(1, 0), scale)


def test_gray_has_one_brightness_and_is_sometimes_a_negative():
    images = torch.rand(40, 1, 4, 4).expand(-1, 3, -1, -1) * 2 - 1
    gray = _gray(images, generator())
    assert torch.equal(gray[:, 0], gray[:, 2])
    kept = (gray - images).abs().amax(dim=(1, 2, 3)) < 1e-6
    negative = (gray + images).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert (kept ^ negative).all()
    assert 10 < kept.sum() < 30
    green, blue = (
        _gray(torch.tensor(color).view(1, 3, 1, 1), generator()).abs().mean() for color in ([0.0, 1, 0], [0.0, 0, 1])
    )
    assert green > blue


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_contrastive_training_resumes_bit_for_bit(precision, few_people, no_exams, tmp_path):
    settings = replace(SETTINGS, precision=precision)
    text = {**EVALUATOR_CONFIG["text_cfg"], "width": 8, "layers": 1}
    small = {**EVALUATOR_CONFIG, "channels": [8, 8, 8, 8], "text_cfg": text}
    blocks = Blocks(tmp_path / "blocks", 2, seed=1)
    states = []
    for folder, limits in (("whole", [None]), ("parts", [0, 0, None])):
        for minutes in limits:
            model = seeded(lambda: Evaluator(**small), 1)
            before = {name: value.clone() for name, value in model.state_dict().items()}
            reached = train_contrastive(
                model, tmp_path / folder, blocks, settings, weights=tmp_path / f"{folder}.safetensors", minutes=minutes
            )
        assert reached == 4
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(before["visual.stem.weight"], states[0]["visual.stem.weight"])
    assert not torch.equal(before["text.text_projection"], states[0]["text.text_projection"])
    assert {value.dtype for value in states[0].values()} <= {torch.float32, torch.int64}


@pytest.mark.slow
def test_contrastive_training_starts_from_a_file(few_people, no_exams, tmp_path):
    shipped = seeded(lambda: Evaluator(**EVALUATOR_CONFIG), 5)
    save_encoder(shipped, tmp_path / "start.safetensors")
    settings = replace(SETTINGS, warm_steps=0, steps=1, rate=1e-9, start=str(tmp_path / "start.safetensors"))
    model = seeded(lambda: Evaluator(**EVALUATOR_CONFIG), 1)
    blocks = Blocks(tmp_path / "blocks", 2, seed=1)
    train_contrastive(model, tmp_path / "out", blocks, settings, weights=tmp_path / "end.safetensors")
    torch.testing.assert_close(model.visual.stem.weight, shipped.visual.stem.weight, atol=1e-3, rtol=1e-3)
    with pytest.raises(ZeroshiftError, match="another kind of model"):
        load_weights(build_guidance_encoder(), tmp_path / "start.safetensors")
    with pytest.raises(ZeroshiftError, match="other settings"):  # not the same training
        train_contrastive(model, tmp_path / "out", blocks, replace(settings, start=""), weights=tmp_path / "end")
