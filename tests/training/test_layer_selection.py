import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zeroshift.clip.loading import load_encoder
from zeroshift.clip.losses import global_similarity
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.core.distributed import Distributed
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.methods.configure import changed, resolve
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.nada import NADA
from zeroshift.methods.source_images import FreshBatch
from zeroshift.training import layer_selection
from zeroshift.training.adaptation import Adaptation
from zeroshift.training.compilation import compile_networks
from zeroshift.training.layer_selection import LayerChoice, chosen_count, named_layers, train_only
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.trainer import adapt

Make = Callable[..., tuple[TrainingContext, Adaptation]]


@pytest.fixture(scope="module")
def generator(tiny_generator: Path) -> StyleGAN2:
    loaded = load_generator(str(tiny_generator))
    assert isinstance(loaded, StyleGAN2)
    return loaded


@pytest.fixture
def make(tiny_generator: Path, tiny_encoder: Path) -> Make:
    """Makes an adapt stage of NADA with the given settings of the stage, whose target differs from the source."""

    def build(seed: int = 0, compile: bool = False, **settings: Any) -> tuple[TrainingContext, Adaptation]:
        stage = AdaptStage(**{"batch_size": 4, "layer_batch_size": 6, "lr": 0.01, **settings})
        config = AdaptConfig("zombie", method="nada", adapt=stage, seed=seed, compile=compile)
        source = load_generator(str(tiny_generator)).requires_grad_(False)
        context = TrainingContext(config, source, [load_encoder(str(tiny_encoder))], Distributed("cpu"))
        adaptation = Adaptation(context, NADA(context))
        with torch.no_grad():  # not at the source, where the image direction is undefined
            for parameter in adaptation.target.get_submodule("synthesis").parameters():
                parameter.mul_(0.95)
        return context, adaptation

    return build


def layer_batch(context: TrainingContext) -> FreshBatch:
    return context.fresh_latents.draw("layers", 0, range(context.config.adapt.layer_batch_size))


def changes(choice: LayerChoice, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The changes of the codes that the choice ranks, from now on."""
    seen: list[Tensor] = []
    best = choice._best
    monkeypatch.setattr(choice, "_best", lambda change: (seen.append(change.clone()), best(change))[1])
    return seen


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("steps", [1, 3])
def test_choice_equals_the_published_way(make: Make, steps: int) -> None:
    """The twin uses torch's SGD on the codes, gradients of all weights, and a ranking of the layers in numpy."""
    settings = {"layer_steps": steps, "layer_lr": 10.0, "noise_mode": "const", "num_layers": 6}
    context, adaptation = make(**settings)
    target, encoder = adaptation.target, context.encoders[0]
    label = encoder.encode_text(["zombie"])[0]
    batch = layer_batch(context)
    codes, candidates = batch.codes.detach(), target.layer_candidates()
    assert candidates is not None

    target.requires_grad_(True)
    moved = codes.clone().requires_grad_()
    optimizer = torch.optim.SGD([moved], lr=10.0)
    for _ in range(steps):
        optimizer.zero_grad()
        global_similarity(encoder.encode_image(target.synthesize(moved)), label, encoder.logit_scale).backward()
        optimizer.step()
    before, after = codes.numpy(), moved.detach().numpy()
    change = [np.abs(after[:, row] - before[:, row]).mean() for row in range(len(candidates))]
    twin = [candidates[row] for row in np.argsort(change)[::-1]]
    assert len({f"{value:.3g}" for value in change}) == len(change), "no ties"

    target.zero_grad()
    assert adaptation.choice is not None
    assert adaptation.choice.from_new_codes(batch, 0) == twin
    assert all(parameter.grad is None for parameter in target.parameters())
    context, adaptation = make(**{**settings, "num_layers": 2})
    assert adaptation.choice is not None
    assert adaptation.choice.from_new_codes(batch, 0) == twin[:2]


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("steps", [1, 2])
def test_parts_change_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch, float64: None, rows: int, steps: int
) -> None:
    """With random noise, which belongs to the samples, in parts of equal and unequal sizes."""
    context, adaptation = make(layer_steps=steps, layer_lr=10.0)
    monkeypatch.setattr(layer_selection, "_PIXELS", rows * 16**2)
    _, in_parts = make(layer_steps=steps, layer_lr=10.0)
    results = []
    for one in (adaptation, in_parts):
        assert one.choice is not None
        seen = changes(one.choice, monkeypatch)
        results.append((one.choice.from_new_codes(layer_batch(context), 0), seen[0]))
    (layers, change), (parts_layers, parts_change) = results
    assert relative(parts_change, change) < 1e-12
    assert parts_layers == layers


class Sizes:
    """Batch sizes with which the target generates images; runs out of memory above a limit."""

    def __init__(self, adaptation: Adaptation, monkeypatch: pytest.MonkeyPatch, most: int = 100):
        self.seen: list[int] = []
        synthesize = adaptation.target.synthesize

        def spy(codes: Tensor, **options: Any) -> Tensor:
            if len(codes) > most:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
            self.seen.append(len(codes))
            return synthesize(codes, **options)

        monkeypatch.setattr(adaptation.target, "synthesize", spy)


def test_parts_fit_memory(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    context, adaptation = make()
    choice = adaptation.choice
    assert choice is not None
    wanted = choice.from_new_codes(layer_batch(context), 0)
    sizes = Sizes(adaptation, monkeypatch, most=2)
    assert choice.from_new_codes(layer_batch(context), 0) == wanted
    assert sizes.seen == [1] * 6, "halved from 6 to 3 to 1"
    sizes.seen.clear()
    assert choice.from_new_codes(layer_batch(context), 0) == wanted
    assert sizes.seen == [1] * 6, "the size that fits is kept"


def test_accumulation_splits_the_choice_too(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    _, adaptation = make(grad_accumulation_steps=2)
    sizes = Sizes(adaptation, monkeypatch)
    adaptation.step(0)
    assert sizes.seen == [2, 2, 2, 2, 2], "three parts of six latents, then two of four"


@pytest.mark.parametrize("augmentations", [0, 2])
def test_choice_by_the_training_batch(make: Make, monkeypatch: pytest.MonkeyPatch, augmentations: int) -> None:
    """Its codes' gradient is that of the global loss of its images, and only chosen layers get gradients.

    The rest of the step is that of fixed layers of the same names.
    """
    settings = {"augmentations": augmentations, "noise_mode": "const", "num_layers": 3}
    context, adaptation = make(layer_codes="batch", **settings)
    choice, draw = adaptation.choice, context.fresh_latents.draw
    assert choice is not None
    batch = draw("adapt", 0, range(4), noise="source")
    codes = batch.codes.detach().clone().requires_grad_()
    features, _ = adaptation._encode(adaptation.target.synthesize(codes), range(4), 0)
    loss = global_similarity(
        features[0], context.encoders[0].encode_text(["zombie"])[0], context.encoders[0].logit_scale
    )
    (gradient,) = torch.autograd.grad(loss, codes)

    seen, sizes = changes(choice, monkeypatch), Sizes(adaptation, monkeypatch)
    update = adaptation.update(batch, None, 0)
    assert sizes.seen == [4], "no forward pass of its own"
    assert relative(seen[0], context.config.adapt.layer_lr * gradient) < 2e-6

    _, fixed = make(layers=tuple(update.layers), **settings)
    assert fixed.update(draw("adapt", 0, range(4), noise="source"), None, 0).losses == update.losses
    for (name, ours), (_, theirs) in zip(
        adaptation.target.named_parameters(), fixed.target.named_parameters(), strict=True
    ):
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-9, rtol=2e-6)
    trained = {name for name, parameter in adaptation.target.named_parameters() if parameter.grad is not None}
    assert {name.rpartition(".")[0].removesuffix(".affine") for name in trained} <= set(update.layers)


def test_one_graph_for_any_choice_changes_nothing(make: Make) -> None:
    """With `compile`, all candidates have gradients enabled in the forward pass; here nothing is compiled."""
    results = []
    for compile in (False, True):
        _, adaptation = make(compile=compile, grad_accumulation_steps=2)
        records = [adaptation.step(step) for step in range(3)]
        results.append((records, list(adaptation.target.parameters())))
    assert results[0][0] == results[1][0]
    for one, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # of PyTorch's tracing
def test_every_compiled_network_is_one_graph_in_a_step_with_a_choice(make: Make) -> None:
    """`fullgraph` raises at a graph break; gradients and results are those without compilation."""
    results = []
    for compiled in (False, True):
        context, adaptation = make(compile=True, noise_mode="random")
        torch.compiler.reset()
        if compiled:
            options = {"fullgraph": True, "backend": "aot_eager"}
            compile_networks(context.source, context.encoders, **options)
            compile_networks(adaptation.target, **options)
        results.append((adaptation.step(0), list(adaptation.target.parameters())))
    torch.compiler.reset()
    (plain, weights), (record, others) = results
    assert record["layers"] == plain["layers"]
    for one, other in zip(weights, others, strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is None:
            assert torch.equal(one, other)
            continue
        largest = float(one.grad.abs().max())
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-5, atol=2e-6 * largest)
        # Adam's first step is lr g / (|g| + eps): of much smaller gradients it shows the rounding.
        clear = one.grad.abs() > 1e-4 * largest
        torch.testing.assert_close(one[clear], other[clear], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("codes", ["new", "batch"])
def test_layers_stay_between_choices(make: Make, codes: str) -> None:
    _, adaptation = make(layer_codes=codes, layer_every=3, num_layers=2, lr=0.2)
    layers = [adaptation.step(step)["layers"] for step in range(9)]
    assert layers == [layers[step - step % 3] for step in range(9)]
    assert len({tuple(one) for one in layers}) > 1


def test_a_resume_keeps_the_layers(tiny_generator: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    stage = AdaptStage(steps=6, layer_batch_size=2, layer_every=4, lr=0.05, unchosen_gradient="zero", num_layers=2)
    config = AdaptConfig(
        "zombie", generator=str(tiny_generator), encoders=(str(tiny_encoder),), method="nada", adapt=stage,
        device="cpu", checkpoint_every=0, preview_samples=1,
    )  # fmt: skip
    whole = adapt(config, RunFolder.open(tmp_path / "whole", config))

    class Stop:
        def update(self, stage: str, step: int, steps: int, losses: Any) -> None:
            if step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(config, RunFolder.open(tmp_path / "run", config), progress=Stop())
    resumed = adapt(config, RunFolder.open(tmp_path / "run", config))
    assert [one["layers"] for one in resumed.history] == [one["layers"] for one in whole.history]
    for one, other in zip(resumed.generator.parameters(), whole.generator.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_without_layers_chooses_again(make: Make) -> None:
    _, adaptation = make(layer_every=4)
    wanted = adaptation.step(0)["layers"]
    state = {name: value for name, value in adaptation.state_dict().items() if name != "layers"}
    adaptation.load_state_dict(state)
    assert len(adaptation.step(1)["layers"]) == len(wanted)


def test_bf16_for_the_choice_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    _, adaptation = make(layer_precision="bf16")
    enabled: list[bool] = []
    synthesize = adaptation.target.synthesize

    def spy(*arguments: Any, **options: Any) -> Tensor:
        enabled.append(torch.is_autocast_enabled("cpu"))
        return synthesize(*arguments, **options)

    monkeypatch.setattr(adaptation.target, "synthesize", spy)
    adaptation.step(0)
    assert enabled == [True, False]


@pytest.mark.parametrize("kind", ["none", "zero"])
def test_gradient_of_unchosen_layers(make: Make, kind: str) -> None:
    """Explicit Adam: without a gradient a layer's state waits; with zero, its second moment and step count move on."""
    beta1, beta2, lr = 0.5, 0.9, 0.01
    _, adaptation = make(unchosen_gradient=kind, betas=(beta1, beta2), num_layers=2, lr=lr)
    assert adaptation.choice is not None
    candidates = adaptation.choice.candidates
    weight = adaptation.target.get_submodule(candidates[0]).get_parameter("weight")
    plan: Sequence[Sequence[str]] = [candidates[:2], candidates[2:4], candidates[:2]]
    choices = iter(plan)
    adaptation.choice.from_new_codes = lambda batch, step: list(next(choices))  # type: ignore[method-assign]
    first = second = torch.zeros_like(weight)
    count, expected = 0, weight.detach().clone()
    for step, layers in enumerate(plan):
        adaptation.step(step)
        chosen = candidates[0] in layers
        assert (weight.grad is not None) == (chosen or kind == "zero")
        if weight.grad is not None:
            assert chosen or not weight.grad.any()
            count, first = count + 1, beta1 * first + (1 - beta1) * weight.grad
            second = beta2 * second + (1 - beta2) * weight.grad.square()
            corrected = (second / (1 - beta2**count)).sqrt() + 1e-8
            expected -= lr * first / (1 - beta1**count) / corrected
        torch.testing.assert_close(weight.detach(), expected, atol=1e-6, rtol=1e-5)
    assert count == {"none": 2, "zero": 3}[kind]


def test_published_counts() -> None:
    for size, count in ((1024, 12), (512, 10), (256, 9)):
        candidates = int(2 * np.log2(size) - 2)
        assert chosen_count(candidates, None) == int(2 * candidates / 3) == count
    assert chosen_count(6, 2) == 2
    with pytest.raises(ZeroshiftError, match="num_layers is 7, but the generator has 6"):
        chosen_count(6, 7)


def test_names(generator: StyleGAN2) -> None:
    assert named_layers(generator, ("adaptive",)) is None
    assert named_layers(generator, ("all",)) == list(generator.layers())
    assert named_layers(generator, ("synthesis.b8.conv0",)) == ["synthesis.b8.conv0"]
    with pytest.raises(ZeroshiftError, match=r"no layer 'synthesis.b8.conv9'. Did you mean synthesis.b8.conv"):
        named_layers(generator, ("synthesis.b8.conv9",))


def test_patterns_of_names(generator: StyleGAN2) -> None:
    convs = [name for name in generator.layers() if "conv" in name]
    assert named_layers(generator, ("synthesis.input", "*.conv?", "synthesis.b8.conv0")) == ["synthesis.input", *convs]
    with pytest.raises(ZeroshiftError, match=r"no layer 'b8\.\*'. Did you mean"):
        named_layers(generator, ("b8.*",))


def test_settings_that_exclude_each_other() -> None:
    config = AdaptConfig("zombie", adapt=AdaptStage(layer_codes="batch"))
    resolve(config)
    for name, value in (("layer_steps", 2), ("grad_accumulation_steps", 2), ("layer_precision", "bf16")):
        with pytest.raises(ZeroshiftError, match=rf"adapt.{name} is {value}; adapt.layer_codes = batch, which"):
            resolve(changed(config, {f"adapt.{name}": value}))
    with pytest.raises(ZeroshiftError, match=r"adapt\.layer_every is 0"):
        resolve(dataclasses.replace(config, adapt=AdaptStage(layer_every=0)))


def test_without_candidates_the_adaptive_choice_is_all_layers(
    generator: StyleGAN2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(generator), "layer_candidates", lambda self: None)
    assert named_layers(generator, ("adaptive",)) == list(generator.layers())


def test_only_the_named_layers_train(generator: StyleGAN2) -> None:
    train_only(generator, ["synthesis.b8.conv0", "synthesis.input"])
    training = {name for name, parameter in generator.named_parameters() if parameter.requires_grad}
    generator.requires_grad_(False)
    assert training == {"synthesis.input.const"} | {
        f"synthesis.b8.conv0.{name}" for name in ("weight", "bias", "noise_strength", "affine.weight", "affine.bias")
    }
