"""The commands of the campaigns, with tiny models and few steps, and the files that they start from."""

import contextlib
import importlib
import os
import pkgutil
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import zeroshift
from tests.campaigns.process import run_command

__all__ = ["COMMANDS", "Command", "opened", "prepared", "start_folder"]

_ADAPT = (
    "adapt --source photo --target zombie --device cpu --encoder {inputs}/encoder.safetensors --prompts.steps 2 "
    "--prompts.batch-size 2 --steps 4 --batch-size 2 --preview-every 2 --preview-samples 2 --checkpoint-every 1"
)
_GAN = f"{_ADAPT} --generator {{inputs}}/generator.safetensors --adapt.layer-batch-size 1"
_DIFFUSION = (
    f"{_ADAPT} --generator {{inputs}}/diffusion --sampling.noise-steps 2 --sampling.steps 2 --sampling.invert-steps 2"
)
_MEASURES = "fd:miniature-judge diversity:miniature-judge id:miniature-judge"
_TINY = "--set adapt.batch_size=1 adapt.layer_batch_size=1 adapt.augmentations=0"


@dataclass(frozen=True)
class Command:
    """One command line, run in a folder of its own."""

    name: str
    line: str  # without --out; {inputs} is the folder of `make_inputs`
    out: str  # value of --out
    run: str = ""  # finished run in the inputs that the folder holds as "run"; "": it starts empty
    earlier: tuple[str, str] = ("", "")  # a word of `line`, and the one that gives other output instead
    new_interpreter: bool = False  # starts processes of its own, which run the main module again

    def arguments(self, inputs: Path, out: str = "", *, other: bool = False) -> list[str]:
        """The command line; `other`: one that gives other output."""
        line = self.line.replace(*self.earlier) if other else self.line
        return [*(word.format(inputs=inputs) for word in shlex.split(line)), f"--out={out or self.out}"]


COMMANDS = {
    command.name: command
    for command in (
        Command("adapt", _GAN, "run"),
        Command("adapt, diffusion", f"{_DIFFUSION} --num-latents 4", "run"),
        Command("adapt, photos", f"{_DIFFUSION} --source-images-dir {{inputs}}/few", "run"),
        Command(
            "generate", "generate run --num 12 --batch-size 4 --seed 0", "samples", "gan", ("--seed 0", "--seed 1")
        ),
        Command(
            "evaluate", f"evaluate run --num 12 --metrics {_MEASURES} --reference {{inputs}}/photos --seed 0", "table",
            "gan", ("--seed 0", "--seed 1"),
        ),
        Command(
            "interpolate, mp4", "interpolate run --seeds 1,2 --strength 0,1 --fps 8 --seconds 1", "walk.mp4", "gan",
            ("--seeds 1,2", "--seeds 3"),
        ),
        Command(
            "interpolate, gif", "interpolate run --seeds 1,2 --fps 8 --seconds 1", "walk.gif", "gan",
            ("--seeds 1,2", "--seeds 3"),
        ),
        Command(
            "translate", "translate run {inputs}/few --steps 2 --invert-steps 2 --strength 1", "translated",
            "diffusion", ("--strength 1", "--strength 2"),
        ),
        Command("export, safetensors", "export run --format safetensors", "export.safetensors", "gan"),
        Command("export, diffusers", "export run --format diffusers", "pipeline", "diffusion"),
        Command("miniature photos", "miniature photos --num 8 --seed 0", "people", "", ("--seed 0", "--seed 1")),
        Command(
            "benchmark", "benchmark --methods nada --targets zombie --seeds 0 --steps 1 --people 16 --fit-steps 1 "
            f"--processes 2 {_TINY}", "trials", new_interpreter=True,
        ),
    )
}  # fmt: skip
"""By name."""


def import_everything() -> None:
    """Imports what commands import on demand, so that forked children start at once."""
    for name in ("imageio_ffmpeg", "tensorboard", "torch.utils.tensorboard", "torchvision.transforms.v2.functional"):
        importlib.import_module(name)
    for module in pkgutil.walk_packages(zeroshift.__path__, "zeroshift."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    torch.set_num_threads(1)


@contextlib.contextmanager
def prepared(name: str) -> Iterator[Path]:
    """A temporary folder for a campaign, with "inputs"; this process is ready to be forked.

    The folder is removed afterward, whatever its permissions are.
    """
    import_everything()
    workspace = Path(tempfile.mkdtemp(prefix=f"{name}-campaign-"))
    try:
        make_inputs(workspace / "inputs")
        yield workspace
    finally:
        with opened(workspace):
            shutil.rmtree(workspace, ignore_errors=True)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[None]:
    """Gives its owner all rights on everything in a folder, and takes them away again."""
    modes: list[tuple[str, int]] = []
    for parent, folders, files in os.walk(folder):
        for path in (os.path.join(parent, name) for name in (*folders, *files)):
            if not os.path.islink(path):
                modes.append((path, os.stat(path).st_mode))
                os.chmod(path, 0o755)
    try:
        yield
    finally:
        for path, mode in reversed(modes):
            with contextlib.suppress(FileNotFoundError):
                os.chmod(path, mode)


def make_inputs(folder: Path) -> Path:
    """Tiny models, photos, and finished runs of a StyleGAN2 ("gan") and a diffusion model ("diffusion").

    Nothing is computed in this process, which stays free of threads and can be forked.
    """
    from tests.helpers.diffusion_models import ddim
    from tests.helpers.tiny_models import save_tiny_encoder, save_tiny_generator

    (folder / "runs").mkdir(parents=True)
    save_tiny_encoder(folder / "encoder.safetensors")
    save_tiny_generator(folder / "generator.safetensors")
    ddim(folder / "diffusion")
    photos = COMMANDS["miniature photos"].line
    for line, out in (
        (f"{photos.replace('8', '12')}", "photos"),
        (f"{photos.replace('8', '3')}", "few"),
        (COMMANDS["adapt"].line, "runs/gan"),
        (COMMANDS["adapt, diffusion"].line, "runs/diffusion"),
    ):
        outcome = run_command(Command("", line, out).arguments(folder), folder)
        if outcome.code:
            raise RuntimeError(f"{line} failed: {outcome.err}")
    return folder


def start_folder(command: Command, inputs: Path, folder: Path) -> Path:
    """A folder from which the command starts."""
    folder.mkdir(parents=True, exist_ok=True)
    if command.run:
        shutil.copytree(inputs / "runs" / command.run, folder / "run")
    return folder
