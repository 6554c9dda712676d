"""AIR, SVL and the domain vector from end to end: interrupted and resumed, in two processes, from the command line."""

import dataclasses
import multiprocessing
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from zeroshift.cli.main import main
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.methods.air import AIROptions
from zeroshift.methods.configure import resolve
from zeroshift.methods.domain_vector import apply_vector
from zeroshift.methods.svl import SVLOptions
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.trainer import adapt

METHODS = {
    "air": AIROptions(anchor_every=0.25, prompt_steps=3, anchor_samples=4),
    "svl": SVLOptions(variations=3, variation_steps=5, fisher_samples=2),
    "domain-vector": None,
}


@pytest.fixture(params=METHODS)
def config(request: pytest.FixtureRequest, tiny_generator: Path, tiny_encoder: Path) -> AdaptConfig:
    return configure(request.param, str(tiny_generator), str(tiny_encoder))


def configure(method: str, generator: str, encoder: str) -> AdaptConfig:
    # With a first beta of zero, Adam turns the rounding of tiny gradients into full steps, so it is larger here.
    stage = AdaptStage(steps=4, batch_size=4, layers=("all",), noise_mode="const", betas=(0.9, 0.99), augmentations=1)
    options = {} if METHODS[method] is None else {"options": METHODS[method]}
    config = AdaptConfig(
        target="zombie", method=method, generator=generator, encoders=(encoder,), device="cpu", adapt=stage,
        preview_every=0, preview_samples=1, truncation_psi=1.0, **options,
    )  # fmt: skip
    return resolve(config)


class Stopper:
    """Presses Ctrl-C after some steps."""

    def __init__(self, after: int):
        self.after = after

    def update(self, stage: str, step: int, steps: int, losses: Mapping[str, float]) -> None:
        if step == self.after:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_resumed_runs_equal_uninterrupted_ones_bit_for_bit(config: AdaptConfig, tmp_path: Path) -> None:
    whole = adapt(config)
    run = RunFolder.open(tmp_path, config)
    for after in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            adapt(config, run, progress=Stopper(after))
    resumed = adapt(config, RunFolder.open(tmp_path, config))
    assert [record["loss"] for record in resumed.history] == [record["loss"] for record in whole.history]
    for a, b in zip(whole.generator.parameters(), resumed.generator.parameters(), strict=True):
        assert torch.equal(a, b)


def share(rank: int, port: int, models: tuple[str, str], folder: str) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    for method in METHODS:
        result = adapt(configure(method, *models))
        if rank == 0:
            losses = torch.tensor([record["loss"] for record in result.history])
            torch.save({"losses": losses, **result.generator.state_dict()}, Path(folder) / f"{method}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_reach_the_result_of_one(
    tiny_generator: Path, tiny_encoder: Path, tmp_path: Path, float64: None
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    models, context = (str(tiny_generator), str(tiny_encoder)), multiprocessing.get_context("spawn")
    processes = [context.Process(target=share, args=(rank, port, models, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=500)
        assert process.exitcode == 0
    for method in METHODS:
        alone, together = adapt(configure(method, *models)), torch.load(tmp_path / f"{method}.pt", weights_only=True)
        losses = [record["loss"] for record in alone.history]
        assert losses == pytest.approx(together["losses"].tolist(), abs=1e-7), method
        for name, value in alone.generator.state_dict().items():
            moved = value - alone.source.state_dict()[name]
            assert (together[name] - value).norm() <= 1e-6 * moved.norm() + 1e-12, (method, name)


@pytest.mark.slow
def test_from_the_command_line(tiny_generator: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    arguments = ["adapt", "--generator", str(tiny_generator), "--encoder", str(tiny_encoder), "--target", "zombie"]
    arguments += ["--steps", "2", "--preview-samples", "2", "--device", "cpu"]
    for method, own in (
        ("air", ["--anchor-samples", "2", "--prompt-steps", "2"]),
        ("svl", ["--variation-steps", "2", "--fisher-samples", "1"]),
        ("domain-vector", ["--in-domain-weight", "0.5", "--lr", "0.01"]),
    ):
        run = tmp_path / method
        assert main([*arguments, "--method", method, *own, "--out", str(run)]) == 0
        config = RunFolder.read(run).config
        assert config.adapt.layers == ("all",), "a default of the method"
        page = (run / "report.html").read_text()
        assert f"--method {method}" in page
        assert " ".join(own[:2]) in page, "the command to repeat the run"
        assert "--layers" not in page
    source, z = load_generator(tiny_generator), torch.randn(2, 16)
    delivered = load_generator(tmp_path / "domain-vector" / "generator.safetensors")
    with torch.no_grad():
        again = apply_vector(source, tmp_path / "domain-vector" / "domain-vector.safetensors")(z)
        torch.testing.assert_close(again, delivered(z), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--method", "air", "--anchor-start", "2"], "fractions of the steps"),
        (["--method", "svl", "--batch-size", "2"], "adapt.batch_size must be at least 3"),
        (["--method", "svl", "--adapt.grad-accumulation-steps", "2"], "adapt.grad_accumulation_steps 1"),
        (["--method", "domain-vector", "--in-domain-weight", "-1"], "in_domain_weight is -1"),
    ],
)
def test_invalid_settings_are_refused(
    arguments: list[str], sentence: str, tiny_generator: Path, tiny_encoder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    models = ["--generator", str(tiny_generator), "--encoder", str(tiny_encoder)]
    assert main(["adapt", *models, "--target", "zombie", *arguments, "--out", str(tmp_path / "run")]) == 1
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_options_of_another_method(config: AdaptConfig) -> None:
    from zeroshift.errors import ZeroshiftError

    with pytest.raises(ZeroshiftError, match="'nada' takes MethodOptions"):
        resolve(dataclasses.replace(config, method="nada", options=AIROptions()))
