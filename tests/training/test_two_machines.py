"""Training on two machines: two network namespaces, each with its own network, joined by a virtual cable."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zeroshift.training.run_folder import RunFolder
from zeroshift.training.trainer import adapt

OPTIONS = ["--target", "zombie", "--method", "nada", "--device", "cpu", "--steps", "2", "--batch-size", "2"]
OPTIONS += ["--adapt.augmentations", "0"]
OPTIONS += ["--adapt.betas", "0.9", "0.99"]  # a first beta of zero turns rounding into full steps


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """The names of two network namespaces; their addresses are 10.77.0.1 and 10.77.0.2, their interfaces the names."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` (iproute2)")
    names = [f"zs{os.getpid()}{side}" for side in "ab"]
    commands = [f"netns add {name}" for name in names]
    commands += [f"link add {names[0]} netns {names[0]} type veth peer name {names[1]} netns {names[1]}"]
    for number, name in enumerate(names, start=1):
        commands += [f"-n {name} address add 10.77.0.{number}/24 dev {name}"]
        commands += [f"-n {name} link set {device} up" for device in (name, "lo")]
    try:
        for command in commands:
            done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"network namespaces are not allowed here: {done.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.slow
def test_two_machines_reach_the_result_of_one(
    tmp_path: Path, machines: list[str], tiny_generator: Path, tiny_encoder: Path
) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "2"]
    launch += ["--num_processes", "2", "--main_process_ip", "10.77.0.1", "--main_process_port", "29400"]
    command = ["-m", "zeroshift", "adapt", "--generator", str(tiny_generator), "--encoder", str(tiny_encoder)]
    command += [*OPTIONS, "--out", str(tmp_path / "run")]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    processes = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, *launch, "--machine_rank", str(rank), *command],
            env={**environment, "GLOO_SOCKET_IFNAME": name, "TP_SOCKET_IFNAME": name},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank, name in enumerate(machines)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert "2 processes" in outputs[0]
    run = RunFolder.read(tmp_path / "run")
    alone = adapt(run.config)
    for one, other in zip(alone.history, run.records(), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert other.get("layers") == one.get("layers")
