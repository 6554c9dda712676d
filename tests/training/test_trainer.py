import dataclasses
import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zeroshift.clip.augmentations import augment
from zeroshift.clip.loading import load_encoder
from zeroshift.clip.losses import directional
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.core.distributed import Distributed
from zeroshift.errors import NotFiniteError, ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.methods.config_file import from_json, to_json
from zeroshift.methods.configure import changed
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.ipl import IPLOptions, PromptStage
from zeroshift.methods.registry import METHODS
from zeroshift.training.adaptation import Adaptation
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.run_generators import load_source_and_target
from zeroshift.training.trainer import adapt

CONFIG = AdaptConfig(
    target="zombie",
    device="cpu",
    options=IPLOptions(PromptStage(steps=3, batch_size=4, num_context=2, lr=0.01)),
    adapt=AdaptStage(steps=4, batch_size=4, layer_batch_size=2, lr=0.01),
    preview_every=2,
    preview_samples=2,
    checkpoint_every=2,
    log_with=(),
)


@pytest.fixture(scope="module")
def config(tiny_generator: Path, tiny_encoder: Path) -> AdaptConfig:
    return dataclasses.replace(CONFIG, generator=str(tiny_generator), encoders=(str(tiny_encoder),))


def change(config: AdaptConfig, **adapt: Any) -> AdaptConfig:
    return changed(config, {f"adapt.{name}": value for name, value in adapt.items()})


def make(config: AdaptConfig) -> tuple[TrainingContext, Adaptation]:
    encoders = [load_encoder(name) for name in config.encoders]
    context = TrainingContext(
        config, load_generator(config.generator).requires_grad_(False), encoders, Distributed("cpu")
    )
    return context, Adaptation(context, METHODS[config.method](context))


def same(a: Generator, b: Generator) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


class Recorder:
    def __init__(self, stop: tuple[str, int] | None = None, error: type[BaseException] = KeyboardInterrupt):
        self.calls: list[tuple[str, int, int]] = []
        self.stop, self.error = stop, error

    def update(self, stage: str, step: int, steps: int, losses: Mapping[str, float]) -> None:
        assert "loss" in losses
        self.calls.append((stage, step, steps))
        if (stage, step) == self.stop:
            raise self.error


def test_a_run_without_a_folder(config: AdaptConfig) -> None:
    recorder = Recorder()
    result = adapt(config, progress=recorder)
    assert recorder.calls == [("prompts", n, 3) for n in (1, 2, 3)] + [("adapt", n, 4) for n in (1, 2, 3, 4)]
    assert [(record["stage"], record["step"]) for record in result.history] == [
        (stage, step - 1) for stage, step, _ in recorder.calls
    ]
    assert not same(result.generator, result.source)
    assert same(adapt(config).generator, result.generator), "the same settings, the same result"
    assert not same(adapt(dataclasses.replace(config, seed=1)).generator, result.generator)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ipl", "nada"])
@pytest.mark.parametrize("stop", [("prompts", 2), ("adapt", 1), ("adapt", 3)])
def test_killed_and_resumed_equals_uninterrupted(
    config: AdaptConfig, tmp_path: Path, method: str, stop: tuple[str, int]
) -> None:
    """After a crash, only the regular checkpoints exist."""
    config = changed(config, {"method": method})
    if method == "nada" and stop[0] == "prompts":
        pytest.skip("has no such stage")
    whole = adapt(config, RunFolder.open(tmp_path / "whole", config))
    with pytest.raises(RuntimeError):
        adapt(config, RunFolder.open(tmp_path / "run", config), progress=Recorder(stop, RuntimeError))
    resumed = adapt(config, RunFolder.open(tmp_path / "run", config))
    assert same(resumed.generator, whole.generator)
    for one, other in zip(resumed.history, whole.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_an_interrupt_leaves_a_checkpoint_of_the_last_step(config: AdaptConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, checkpoint_every=0)
    run = RunFolder.open(tmp_path / "run", config)
    with pytest.raises(KeyboardInterrupt):
        adapt(config, run, progress=Recorder(("adapt", 3)))
    state = run.load_checkpoint()
    assert state is not None
    assert (state["stage"], state["step"]) == ("adapt", 3)
    recorder = Recorder()
    assert same(
        adapt(config, RunFolder.open(tmp_path / "run", config), progress=recorder).generator, adapt(config).generator
    )
    assert recorder.calls == [("adapt", 4, 4)]


def test_ctrl_c_waits_for_the_end_of_the_step(
    config: AdaptConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, step = RunFolder.open(tmp_path / "run", config), Adaptation.step

    def pressed_within(self: Adaptation, number: int) -> dict[str, Any]:
        if number == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, number)

    monkeypatch.setattr(Adaptation, "step", pressed_within)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        adapt(config, run)
    assert signal.getsignal(signal.SIGINT) is before
    state = run.load_checkpoint()
    assert state is not None
    assert (state["stage"], state["step"]) == ("adapt", 2)
    assert len(run.records()) == 5


def test_a_checkpoint_of_another_generator_is_refused(config: AdaptConfig, tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "run", config)
    with pytest.raises(KeyboardInterrupt):
        adapt(config, run, progress=Recorder(("adapt", 1)))
    other = StyleGAN2(resolution=16, z_dim=16, w_dim=16, mapping_layers=2, channels={4: 8, 8: 8, 16: 8})
    with pytest.raises(ZeroshiftError, match="started from another source generator"):
        adapt(config, run, generator=other)
    state = run.load_checkpoint()
    assert state is not None
    del state["source"]  # as in checkpoints of earlier versions
    run.save_checkpoint(state)
    with pytest.raises(ZeroshiftError, match="does not fit its settings or generator"):
        adapt(config, run, generator=other)


def test_losses_that_are_not_finite_change_nothing(config: AdaptConfig) -> None:
    context, adaptation = make(changed(config, {"method": "nada"}))
    with torch.no_grad():
        adaptation.target.synthesis.b4.torgb.bias.fill_(float("nan"))
    before = {name: value.clone() for name, value in adaptation.target.state_dict().items()}
    with pytest.raises(ZeroshiftError, match="loss is nan at the first step of stage 'adapt', before any update"):
        adaptation.step(0)
    after = adaptation.target.state_dict()
    assert all(torch.equal(before[name].nan_to_num(7), after[name].nan_to_num(7)) for name in before)
    assert same(adaptation.target_ema, context.source)


def test_a_step_equals_its_naive_twin(config: AdaptConfig) -> None:
    """One optimizer step and the moving average, pair by pair, with gradients of all weights and explicit Adam."""
    config = change(config, layers=("synthesis.b8.conv0", "synthesis.b16.conv1"), noise_mode="const", ema_decay=0.9)
    context, adaptation = make(config)
    with torch.no_grad():  # not at the source, where the direction is undefined
        for parameter in adaptation.target.synthesis.parameters():
            parameter.mul_(0.95)
    target, encoder = adaptation.target, context.encoders[0]
    names = [name for name, _ in target.named_parameters() if name.startswith(config.adapt.layers)]
    method = adaptation._method
    batch = context.fresh_latents.draw("adapt", 0, range(4), noise="source")
    target.requires_grad_(True)
    loss = torch.zeros(())
    for z in batch.latents:
        codes, mapper_input = context.source.codes(z[None]), context.source.mapper_input(z[None])
        images = [generator.synthesize(codes) for generator in (context.source, target)]
        source, moved = (encoder.encode_image(image) for image in images)
        loss = loss + directional(source, moved, method.text_directions([mapper_input], 0)[0]) / 4
    gradients = dict(
        zip(
            dict(target.named_parameters()),
            torch.autograd.grad(loss, list(target.parameters()), allow_unused=True),
            strict=True,
        )
    )
    expected = {name: value.detach().clone() for name, value in target.named_parameters()}
    for name in names:
        gradient = gradients[name]
        assert gradient is not None
        expected[name] -= config.adapt.lr * gradient / (gradient.abs() + 1e-8)  # Adam's first step, first beta zero
    update = adaptation.update(batch, None, 0)
    assert update.losses["loss"] == pytest.approx(loss.item(), abs=1e-5)
    source_weights = dict(context.source.named_parameters())
    for name, value in target.named_parameters():
        far = gradients[name] is None or gradients[name].abs().clamp(min=1e-12) > 1e-5  # where the sign is certain
        torch.testing.assert_close(value * far, expected[name] * far, atol=1e-5, rtol=1e-5)
        average = dict(adaptation.target_ema.named_parameters())[name]
        torch.testing.assert_close(average, 0.9 * source_weights[name] + 0.1 * value)


def test_accumulation_changes_nothing(config: AdaptConfig) -> None:
    results = []
    for accumulate in (1, 2, 4):
        context, adaptation = make(
            change(config, grad_accumulation_steps=accumulate, noise_mode="random", augmentations=2)
        )
        draw = context.fresh_latents.draw
        batch = draw("adapt", 0, range(4), noise="source")
        update = adaptation.update(batch, draw("layers", 0, range(2)), 0)
        gradients = [p.grad for p in adaptation.target.parameters() if p.grad is not None]
        results.append((update, gradients))
    for update, gradients in results[1:]:
        assert update.losses == pytest.approx(results[0][0].losses, abs=1e-5)
        torch.testing.assert_close(update.target_images, results[0][0].target_images)
        for one, other in zip(gradients, results[0][1], strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-3)


def test_augmentations_are_shared_by_a_pair_and_differentiable() -> None:
    images = torch.rand(3, 3, 16, 16).requires_grad_()
    augmented = augment(images, 2, 5, "views", 0, samples=[4, 5, 6])
    assert augmented.shape == (6, 3, 16, 16)
    alone = augment(images[1:2], 2, 5, "views", 0, samples=[5])
    torch.testing.assert_close(alone, augmented[[1, 4]])
    assert not torch.allclose(augmented[0], augmented[3])
    assert torch.autograd.grad(augmented.sum(), images)[0].abs().sum() > 0
    assert augment(images, 0, 5, "views", 0, samples=[4, 5, 6]) is images
    flat = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(augment(flat, 3, 1, samples=[0]), flat.expand(3, -1, -1, -1))


def test_bf16_is_close_to_float32(config: AdaptConfig) -> None:
    config = change(config, layers=("all",))
    losses = [
        [record["loss"] for record in adapt(dataclasses.replace(config, precision=precision)).history[:4]]
        for precision in ("float32", "bf16")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.1)


def test_tf32_is_for_the_run_alone(config: AdaptConfig) -> None:
    seen: list[str] = []
    before = torch.get_float32_matmul_precision()
    for precision in ("float32", "tf32"):
        adapt(
            dataclasses.replace(config, precision=precision),
            callbacks=[lambda event: seen.append(torch.get_float32_matmul_precision())],
        )
        assert torch.get_float32_matmul_precision() == before == "highest"
    assert set(seen[: len(seen) // 2]) == {"highest"}
    assert set(seen[len(seen) // 2 :]) == {"high"}


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_modules_are_used(config: AdaptConfig, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks that torch.compile is called, and each step marked for CUDA graphs; PyTorch tests the results itself."""
    compiled, marks, options = list[str](), list[int](), {} if mode == "default" else {"mode": mode}

    def compile_module(self: torch.nn.Module, **given: Any) -> None:
        assert given == options
        compiled.append(type(self).__name__)

    def compile_function(function: Any, **given: Any) -> Any:
        assert given == options
        compiled.append(function.__name__)
        return function

    monkeypatch.setattr(torch.nn.Module, "compile", compile_module)
    monkeypatch.setattr(torch, "compile", compile_function)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(1))
    result = adapt(dataclasses.replace(config, compile=True, compile_mode=mode))
    texts, *modules = sorted(compiled, key=str.lower)
    assert texts == "_causal_features"
    assert modules == ["Mapping", "Mapping", "StyleGAN2Synthesis", "StyleGAN2Synthesis", "VisionTransformer"]
    assert len(marks) == (0 if mode == "default" else 1 + len(result.history)), (
        "after compilation, and before each step"
    )


def test_several_encoders_and_all_layers(config: AdaptConfig) -> None:
    config = dataclasses.replace(config, encoders=config.encoders * 2, encoder_weights=(1.0, 0.5))
    single = adapt(changed(config, {"method": "nada", "encoders": config.encoders[:1], "encoder_weights": ()}))
    double = adapt(changed(config, {"method": "nada"}))
    assert double.history[0]["loss"] == pytest.approx(1.5 * single.history[0]["loss"], abs=1e-4)


def test_classes(config: AdaptConfig) -> None:
    torch.manual_seed(0)
    generator = StyleGAN2(
        resolution=16, z_dim=16, w_dim=16, num_classes=3, mapping_layers=2, channels={4: 8, 8: 8, 16: 8}
    )
    with pytest.raises(ZeroshiftError, match="3 classes"):
        adapt(config, generator=generator)
    results = [
        adapt(dataclasses.replace(config, class_index=index), generator=generator).history[-1]["loss"]
        for index in (0, 2)
    ]
    assert results[0] != results[1]


def share(rank: int, world: int, port: int, text: str, folder: str) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    torch.set_num_threads(1)
    config = from_json(text)
    run = RunFolder.open(Path(folder) / "run", config) if rank == 0 else RunFolder(Path(folder) / "run", config)
    result = adapt(config, run)
    torch.save(result.generator.state_dict(), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_reach_the_result_of_one(config: AdaptConfig, tmp_path: Path) -> None:
    # With a first beta of zero, Adam turns the rounding of tiny gradients into full steps, so it is larger here.
    config = change(config, steps=3, betas=(0.9, 0.99), grad_accumulation_steps=2, augmentations=1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=share, args=(rank, 2, port, to_json(config), str(tmp_path))) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
        assert process.exitcode == 0
    alone = adapt(config)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    together = RunFolder.read(tmp_path / "run").records()
    for one, other in zip(alone.history, together, strict=True):
        for name in ("loss", "contrastive", "domain", "directional"):
            assert one.get(name) == pytest.approx(other.get(name), abs=1e-4)
        assert one.get("layers") == other.get("layers")
    moved = {name: value - alone.source.state_dict()[name] for name, value in alone.generator.state_dict().items()}
    for name, value in moved.items():
        error = (first[name] - alone.generator.state_dict()[name]).norm()
        assert error <= 0.02 * value.norm() + 1e-6, name


def test_batches_must_split_evenly() -> None:
    distributed = Distributed("cpu")
    distributed.size, distributed.rank = 2, 1
    assert list(distributed.share(range(6))) == [3, 4, 5]
    with pytest.raises(ZeroshiftError, match="batch of 5 does not split evenly among 2 processes"):
        distributed.share(range(5))


def test_gathered_rows_have_the_gradient_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two simulated processes: the sum of their gradients is the gradient of the whole loss."""
    rows = torch.randn(4, 3)
    weight = torch.randn(3, 3, requires_grad=True)

    def loss(x: Tensor) -> Tensor:
        return (x @ x.T).softmax(dim=1).diagonal().log().sum()

    (whole,) = torch.autograd.grad(loss(rows @ weight), weight)
    parts = []
    for rank in (0, 1):
        distributed = Distributed("cpu")
        distributed.size, distributed.rank = 2, rank
        monkeypatch.setattr("zeroshift.core.distributed.gather", lambda own: (rows @ weight).detach())
        parts.append(torch.autograd.grad(loss(distributed.gather(rows[2 * rank : 2 * rank + 2] @ weight)), weight)[0])
    torch.testing.assert_close(parts[0] + parts[1], whole)


def flip_a_bit(file: Path, position: float = 0.5) -> None:
    content = bytearray(file.read_bytes())
    content[int(position * len(content))] ^= 16
    file.write_bytes(content)


@pytest.mark.slow
def test_a_damaged_checkpoint_ends_as_if_nothing_had_happened(config: AdaptConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(changed(config, {"method": "nada"}), checkpoint_every=1)
    whole = adapt(config, RunFolder.open(tmp_path / "whole", config))
    run = RunFolder.open(tmp_path / "run", config)
    with pytest.raises(RuntimeError):
        adapt(config, run, progress=Recorder(("adapt", 4), RuntimeError))
    flip_a_bit(run.checkpoint_path)
    changes = dataclasses.replace(config, checkpoint_every=3, preview_every=0)  # may change
    with pytest.warns(UserWarning, match="is damaged. The run continues from the one before it"):
        resumed = adapt(changes, RunFolder.open(tmp_path / "run", changes))
    assert same(resumed.generator, whole.generator)
    assert [record["step"] for record in resumed.history] == [0, 1, 2, 3]
    files = [tmp_path / name / "generator.safetensors" for name in ("whole", "run")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_weights_that_explode_in_the_last_update_are_not_delivered(
    config: AdaptConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(adaptation: Adaptation) -> None:
        next(iter(adaptation.target.parameters())).data.fill_(float("inf"))

    monkeypatch.setattr(Adaptation, "_optimizer_step", explode)
    config = change(changed(config, {"method": "nada"}), steps=1)
    run = RunFolder.open(tmp_path / "run", config)
    with pytest.raises(NotFiniteError, match="The update of step 1 of stage 'adapt' made weights that are not finite"):
        adapt(config, run)
    assert not run.generator_path.exists()
    assert not run.has_checkpoint


def test_a_source_that_is_not_finite_is_named_before_any_work(config: AdaptConfig, tmp_path: Path) -> None:
    source = load_generator(config.generator)
    for layer in (source.synthesis.b4, source.synthesis.b8, source.synthesis.b16):
        layer.torgb.bias.data.fill_(3e38)  # finite, but not the sum
    recorder = Recorder()
    with pytest.raises(NotFiniteError, match=r"The source generator .* before any training"):
        adapt(config, generator=source, progress=recorder)
    source.mapping.w_avg[0] = float("inf")
    with pytest.raises(
        NotFiniteError, match=r"The generator has weights that are not finite numbers, in mapping\.w_avg"
    ):
        adapt(config, generator=source, progress=recorder)
    assert recorder.calls == []


def test_another_object_does_not_extend_a_run(config: AdaptConfig, tmp_path: Path) -> None:
    source = load_generator(config.generator)
    config = dataclasses.replace(
        changed(config, {"adapt.steps": 1, "method": "nada", "keep_checkpoints": True}), generator="not a file"
    )
    adapt(config, RunFolder.open(tmp_path / "run", config), generator=source)
    with torch.no_grad():
        next(source.parameters()).add_(0.1)
    longer = changed(config, {"adapt.steps": 2})
    with pytest.raises(ZeroshiftError, match="started from another source generator"):
        adapt(longer, RunFolder.open(tmp_path / "run", longer), generator=source)


def test_a_lost_process_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def reduce(value: Tensor, how: str) -> Tensor:
        raise RuntimeError("[../third_party/gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:55")

    distributed = Distributed("cpu")
    distributed.size = 2
    monkeypatch.setattr("zeroshift.core.distributed.reduce", reduce)
    with pytest.raises(ZeroshiftError, match=r"Another process of this run has ended .*Connection closed by peer"):
        distributed.any(True)


def test_metadata_and_previews(config: AdaptConfig, tmp_path: Path) -> None:
    from zeroshift.generators.checkpoints.files import generator_metadata

    run = RunFolder.open(tmp_path / "run", config)
    result = adapt(config, run)
    described = generator_metadata(run.generator_path)
    assert (described["target"], described["method"]) == ("zombie", "ipl")
    assert same(load_generator(str(run.generator_path)), result.generator)
    assert sorted(path.name for path in (tmp_path / "run" / "previews").iterdir()) == [
        "00000000.png", "00000002.png", "00000004.png", "prompts-00000002.png", "prompts-00000003.png",
    ]  # fmt: skip
    assert json.loads(run.metrics_path.read_text().splitlines()[-1])["layers"]


@pytest.mark.slow
def test_a_run_of_a_generator_object_can_be_opened_again(config: AdaptConfig, tmp_path: Path) -> None:
    source = load_generator(config.generator)
    config = dataclasses.replace(changed(config, {"adapt.steps": 1, "keep_checkpoints": True}), generator="not a file")
    result = adapt(config, RunFolder.open(tmp_path / "run", config), generator=source)
    run = RunFolder.read(tmp_path / "run")
    before, after = load_source_and_target(run)
    assert same(before, source)
    assert same(after, result.generator)
    assert run.source_config.generator == str(run.source_path), "what the catalogue is asked about"
    longer = changed(config, {"adapt.steps": 2})
    extended = adapt(longer, RunFolder.open(tmp_path / "run", longer))
    assert same(extended.source, source), "from its own copy"
