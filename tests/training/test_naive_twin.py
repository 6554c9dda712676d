"""The naive twin of the published program (benchmarks/naive.py) equals zeroshift in value and gradient."""

import copy

import pytest
import torch
from clock import REST, WHOLE, Clock
from naive import NaiveAdaptation, NaivePrompts, synthesize

from zeroshift.clip.loading import load_encoder
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.core.distributed import Distributed
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.methods import source_images
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.ipl import IPL, IPLOptions, PromptStage
from zeroshift.training.adaptation import Adaptation

PROMPTS, ADAPT = 5, 3  # batches


@pytest.fixture
def settings(tiny_encoder, tiny_generator):
    """Two equal contexts, because the twin unfreezes its encoder."""
    config = AdaptConfig(
        target="zombie",
        options=IPLOptions(PromptStage(batch_size=PROMPTS, source_weight=0.5)),
        adapt=AdaptStage(batch_size=ADAPT, layer_batch_size=4, layer_steps=2),
    )

    def make():
        source = load_generator(str(tiny_generator)).requires_grad_(False)
        return TrainingContext(config, source, [load_encoder(str(tiny_encoder))], Distributed("cpu"))

    return make(), make()


def near(source, amount=0.1):
    """A copy with weights far enough from the source's for well-conditioned image directions."""
    torch.manual_seed(3)
    target = copy.deepcopy(source)
    with torch.no_grad():
        for parameter in target.synthesis.parameters():
            parameter.add_(amount * torch.randn_like(parameter))
    return target


def relative(ours, naive):
    ours, naive = (torch.cat([tensor.detach().double().flatten() for tensor in side]) for side in (ours, naive))
    return float((ours - naive).norm() / naive.norm())


def gradients(module):
    return {name: value.grad for name, value in module.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("noise", ["const", "random", "none"])
def test_images(settings, noise):
    generator = settings[0].source
    codes = generator.codes(generator.sample_latents(0, range(3)))
    ours = generator.synthesize(codes, noise_mode=noise, noise_seed=5)
    naive = synthesize(generator, codes, noise_mode=noise, noise_seed=5)
    assert relative([ours], [naive]) < 1e-5


@pytest.mark.parametrize("at_once", [2, PROMPTS])
def test_prompt_stage(settings, at_once, monkeypatch):
    context, other = settings
    monkeypatch.setattr(source_images, "_PIXELS", at_once * context.source.resolution**2)
    method = IPL(context)
    learning = method.stages()[0]
    twin = NaivePrompts(other, copy.deepcopy(method.mappers[0]))
    for step in range(2):
        batch = context.fresh_latents.draw("prompts", step, range(PROMPTS))
        ours, naive = learning.update(batch, step), twin.update(batch.latents, step, range(PROMPTS))
        assert ours.losses == pytest.approx(naive.losses, rel=1e-4)
        assert relative(ours.source_features, naive.source_features) < 1e-4
        assert relative(ours.target_features, naive.target_features) < 1e-4
        seen, wanted = gradients(method.mappers[0]), gradients(twin.mapper)
        assert seen.keys() == wanted.keys()
        assert relative(seen.values(), wanted.values()) < 1e-4
        # The twin also computes gradients of CLIP's weights.
        assert gradients(other.encoders[0])
        assert not gradients(context.encoders[0])
    assert relative(method.mappers.parameters(), twin.mapper.parameters()) < 1e-4


def test_adapt_stage(settings):
    context, other = settings
    method = IPL(context)
    adaptation = Adaptation(context, method)
    start = near(context.source)
    adaptation.target.load_state_dict(start.state_dict())
    twin = NaiveAdaptation(other, method.mappers[0], start)
    for step in range(2):
        batch = context.fresh_latents.draw("adapt", step, range(ADAPT), noise="source")
        layer_batch = context.fresh_latents.draw("layers", step, range(4))
        ours = adaptation.update(batch, layer_batch, step)
        naive = twin.update(batch.latents, layer_batch.latents, step, range(ADAPT))
        assert ours.layers == naive.layers
        assert ours.losses == pytest.approx(naive.losses, rel=1e-4)
        for name in ("source_images", "target_images"):
            assert relative([getattr(ours, name)], [getattr(naive, name)]) < 1e-4
        assert relative(ours.text_directions, naive.text_directions) < 1e-4
        seen, wanted = gradients(adaptation.target), gradients(twin.target)
        assert seen.keys() == wanted.keys()
        assert relative(seen.values(), wanted.values()) < 1e-3
    for ours, naive in ((adaptation.target, twin.target), (adaptation.target_ema, twin.target_ema)):
        assert relative(ours.parameters(), naive.parameters()) < 1e-4


def test_clock_counts_outermost_calls(monkeypatch):
    now = [0.0]

    class Work:
        def inner(self):
            now[0] += 1

        def outer(self):
            now[0] += 2
            self.inner()

        def step(self):
            self.inner()
            self.outer()
            now[0] += 5
            return "seen"

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    work, clock = Work(), Clock(torch.device("cpu"), "wall")
    clock.watch(work, "inner", "in")
    clock.watch(work, "outer", "out")
    work.inner()  # between steps: not timed
    for _ in range(2):
        assert clock.time(work.step) == ("seen", {"in": 1, "out": 3, REST: 5, WHOLE: 9})
