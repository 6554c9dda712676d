"""AIR against its equations, and its training and resuming."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder
from zeroshift.clip.losses import directional
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.core.distributed import Distributed
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.methods.air import AIR, AIROptions, blended_label, learn_prompt
from zeroshift.methods.config_file import from_json, to_json
from zeroshift.methods.configure import preset, resolve
from zeroshift.methods.context import TrainingContext
from zeroshift.training.adaptation import Adaptation

OPTIONS = AIROptions(anchor_start=0.5, anchor_every=0.25, prompt_steps=5, anchor_samples=6)
CONFIG = AdaptConfig(
    target="zombie", method="air", options=OPTIONS, truncation_psi=1.0,
    adapt=AdaptStage(steps=4, batch_size=2, layers=("all",), noise_mode="const"),
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path) -> Encoder:
    return load_encoder(str(tiny_encoder))


def make(generator: Path, encoders: list[Encoder], **changes: Any) -> TrainingContext:
    config = resolve(dataclasses.replace(CONFIG, encoders=("miniature",) * len(encoders), **changes))
    return TrainingContext(config, load_generator(str(generator)).requires_grad_(False), encoders, Distributed("cpu"))


def normalize(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def test_label_between_source_and_target(encoder: Encoder) -> None:
    person, sketch = encoder.embed_words("person"), encoder.embed_words("sketch zombie")
    blended = blended_label(encoder, "person", "sketch zombie", 0.75)[0]
    expected = [0.25 * person[min(i, len(person) - 1)] + 0.75 * sketch[i] for i in range(len(sketch))]
    torch.testing.assert_close(blended, torch.stack(expected))
    torch.testing.assert_close(blended_label(encoder, "sketch zombie", "person", 1.0)[0], person)


def test_a_prompt_without_steps_is_a_text(encoder: Encoder) -> None:
    """Context and label embeddings, encoded as one prompt, give the feature of the text itself."""
    context, label = (encoder.embed_words(words)[None] for words in ("a photo of a", "zombie"))
    feature = learn_prompt(encoder, context, label, torch.zeros(24), torch.ones(24), 0, 0.1)
    torch.testing.assert_close(
        feature, normalize(encoder.encode_text(["a photo of a zombie"]))[0], atol=1e-5, rtol=1e-4
    )


def test_prompts_learn_the_offset_of_the_images(encoder: Encoder) -> None:
    context, label = (encoder.embed_words(words)[None] for words in ("a photo of a", "zombie"))
    before = encoder.label_feature("photo")
    moved = normalize(torch.randn(24, generator=torch.Generator().manual_seed(3)))

    def loss(steps: int) -> float:
        feature = learn_prompt(encoder, context, label, before, moved, steps, 0.01)
        return float(1 - F.cosine_similarity(feature - before, moved, dim=0))

    assert loss(30) < loss(0) - 0.05


def test_anchor_and_its_loss_equal_their_naive_twins(tiny_generator: Path, encoder: Encoder) -> None:
    context = make(tiny_generator, [encoder])
    method = AIR(context)
    adaptation = Adaptation(context, method)
    for step in range(2):
        assert set(adaptation.step(step)) == {"loss", "directional", "layers"}
    before = adaptation.target.state_dict()
    anchored = load_generator(str(tiny_generator))
    anchored.load_state_dict({name: value.clone() for name, value in before.items()})

    # the naive anchor: one image at a time; features and templates are encoded again
    from zeroshift.core.rng import normal

    offsets = []
    for sample in range(6):
        z = normal((16,), 0, "anchors", samples=[sample])
        images = [generator(z) for generator in (context.source, anchored)]
        a, b = (normalize(encoder.encode_image(image)[0]) for image in images)
        offsets.append(normalize(b - a))
    moved = normalize(torch.stack(offsets).mean(dim=0)).detach()
    ctx = encoder.embed_words("a photo of a")[None]
    label = 0.5 * encoder.embed_words("photo")[None] + 0.5 * encoder.embed_words("zombie")[None]
    prompt = ctx.clone().requires_grad_()
    adam = torch.optim.Adam([prompt], lr=0.002)
    for _ in range(5):
        text = normalize(encoder.encode_prompts(torch.cat([prompt, label], dim=1), "")[0])
        adam.zero_grad()
        (1 - (normalize(text - encoder.label_feature("photo")) @ moved)).backward()
        adam.step()
    text = normalize(encoder.encode_prompts(torch.cat([prompt, label], dim=1), "")[0]).detach()
    direction = normalize(encoder.label_feature("zombie") - text)

    adaptation.step(2)
    torch.testing.assert_close(method.anchor_directions()[0][0], direction, atol=1e-4, rtol=1e-3)

    # the loss of the anchor, for the pairs of the next step
    latents = context.fresh_latents.draw("adapt", 3, range(2)).latents
    codes = context.source.codes(latents)
    now = encoder.encode_image(adaptation.target.synthesize(codes))
    then = encoder.encode_image(anchored.synthesize(codes))
    expected = directional(then, now, method.anchor_directions()[0])
    method._every = 100  # no new anchor at this step
    assert adaptation.step(3)["anchor"] == pytest.approx(float(expected.detach()), abs=1e-5)


def test_anchors_are_set_at_the_scheduled_steps(tiny_generator: Path, encoder: Encoder, monkeypatch: Any) -> None:
    set_at: list[int] = []
    monkeypatch.setattr(AIR, "_set_anchor", lambda self, step, target: set_at.append(step))
    steps = 300
    method = AIR(make(tiny_generator, [encoder], adapt=AdaptStage(steps=steps), options=AIROptions(anchor_samples=2)))
    for step in range(steps):
        method.begin_step(step, method.context.source)
    assert set_at == [150, 180, 210, 240, 270]


def test_several_encoders(tiny_generator: Path, encoder: Encoder) -> None:
    """Two equal encoders of half the weight act as one of full weight."""
    one, two = (
        Adaptation(context, AIR(context))
        for context in (
            make(tiny_generator, [encoder]),
            make(tiny_generator, [encoder, encoder], encoder_weights=(0.5, 0.5)),
        )
    )
    for step in range(3):
        assert one.step(step)["loss"] == pytest.approx(two.step(step)["loss"], abs=1e-5)


def test_resumes_bit_for_bit_within_anchors(tiny_generator: Path, encoder: Encoder) -> None:
    whole = Adaptation(*(lambda s: (s, AIR(s)))(make(tiny_generator, [encoder])))
    for step in range(3):
        whole.step(step)
    state = copy.deepcopy(whole.state_dict())
    assert set(state["method"]) == {"anchor", "seen", "prompts"}
    resumed = Adaptation(*(lambda s: (s, AIR(s)))(make(tiny_generator, [encoder])))
    resumed.load_state_dict(state)
    assert whole.step(3) == resumed.step(3)
    for a, b in zip(whole.target_ema.parameters(), resumed.target_ema.parameters(), strict=True):
        assert torch.equal(a, b)


def test_invalid_options_are_refused(tiny_generator: Path, encoder: Encoder) -> None:
    for changes, sentence in (
        ({"anchor_start": 1.5}, "fractions of the steps"),
        ({"anchor_samples": 0}, "samples must be at least 1"),
        ({"prompt_lr": 0.0}, "prompt_lr must be positive"),
        ({"prompt_context": " "}, "prompt_context is empty"),
        ({"prompt_steps": "many"}, "prompt_steps is 'many'"),
    ):
        with pytest.raises(ZeroshiftError, match=sentence):
            resolve(dataclasses.replace(CONFIG, options=AIROptions(**changes)))
    with pytest.raises(ZeroshiftError, match="longer than the encoder's 24 tokens"):
        AIR(make(tiny_generator, [encoder], options=dataclasses.replace(OPTIONS, prompt_context="a photo of " * 8)))


def test_presets() -> None:
    published, miniature = (resolve(preset(name, "zombie", method="air")) for name in ("published", "miniature"))
    assert published.options == AIROptions()
    assert published.adapt.layers == ("all",)
    assert miniature.adapt.layers == ("adaptive",)
    assert from_json(to_json(miniature)) == miniature
