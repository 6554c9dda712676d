"""The undamaged generator files that are mutated: tiny models in every format. Each function fills a folder.

The subfolders of the folder are the seeds; a reader gets one of them, mutated.
"""

import functools
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from diffusers import PNDMScheduler
from safetensors.torch import save_file
from torch import nn

from tests.fuzz.pickles import CANARY
from tests.generators.checkpoints import test_diffae as diffae
from tests.generators.checkpoints import test_nvidia as nvidia
from tests.generators.checkpoints import test_rosinality as rosinality
from tests.helpers import diffusion_models
from tests.helpers.tiny_models import save_tiny_generator
from zeroshift.generators import StyleGAN3, load_generator, save_generator, wrap_generator
from zeroshift.generators.diffusion.options import DDIMOptions

GENERATOR = "generator.safetensors"
FEW_STEPS = DDIMOptions(noise_steps=2, steps=1)


def seed_folder(folder: Path, name: str) -> Path:
    """A new folder for the files of a seed."""
    (folder / name).mkdir(parents=True)
    return folder / name


def own_stylegan2(folder: Path) -> None:
    save_tiny_generator(seed_folder(folder, "plain") / GENERATOR)
    save_generator(
        load_generator(GENERATOR), seed_folder(folder, "adapted") / GENERATOR, {"steps": "3", "target": "zombie"}
    )


def own_stylegan3(folder: Path) -> None:
    sizes = {"z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8, "num_layers": 4, "num_critical": 1}
    save_generator(StyleGAN3(16, **sizes, margin_size=4), seed_folder(folder, "t") / GENERATOR)
    save_generator(
        StyleGAN3(16, **sizes, margin_size=4, conv_kernel=1, radial=True), seed_folder(folder, "r") / GENERATOR
    )


def own_diffusion(folder: Path) -> None:
    for name, make in (("ddpm", diffusion_models.ddpm), ("ldm", diffusion_models.ldm)):
        pipeline = load_generator(make(folder.parent / f"of-{name}"))
        pipeline.configure(FEW_STEPS)
        save_generator(pipeline, seed_folder(folder, name) / GENERATOR)


def own_autoencoder(folder: Path) -> None:
    generator = diffae.convert(_diffae_weights(), 16)
    generator.configure(FEW_STEPS)
    save_generator(generator, seed_folder(folder, "plain") / GENERATOR)


def tiny_module() -> nn.Module:
    """A module that `load_generator` can fill."""
    return nn.Sequential(nn.Linear(8, 3 * 8 * 8), nn.Unflatten(1, (3, 8, 8)), nn.Tanh())


def own_module(folder: Path) -> None:
    save_generator(wrap_generator(tiny_module(), (8,), 8), seed_folder(folder, "plain") / GENERATOR)


@contextmanager
def _nvidia_program() -> Iterator[types.SimpleNamespace]:
    """NVIDIA's modules while a file is written, as in `tests.generators.checkpoints.test_nvidia`."""

    def _reconstruct_persistent_obj(meta: dict[str, object]) -> None:
        raise NotImplementedError

    class EasyDict(dict):  # type: ignore[type-arg]
        __getattr__, __setattr__ = dict.__getitem__, dict.__setitem__

    modules = {name: types.ModuleType(name) for name in nvidia.MODULES}
    for module, thing in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
        thing.__module__, thing.__qualname__ = module, thing.__name__
        setattr(modules[module], thing.__name__, thing)
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        patch.setattr(nvidia.Persistent, "source", f"open({CANARY!r}, 'w').close()\n")
        yield types.SimpleNamespace(EasyDict=EasyDict, patch=patch)


def nvidia_stylegan2(folder: Path) -> None:
    published = (("ada", "stylegan2_nvidia_32", None), ("classes", "stylegan2_nvidia_32_conditional", 2))
    for name, model, protocol in published:
        with _nvidia_program() as program:
            program.path = seed_folder(folder, name) / "network.pkl"
            weights, arguments, _ = nvidia.recorded(model)
            nvidia.write(program, nvidia.snapshot(program, nvidia.stylegan2_tree(weights, arguments)), protocol)


def nvidia_stylegan3(folder: Path) -> None:
    for name, protocol in (("t", None), ("r", 2)):
        with _nvidia_program() as program:
            program.path = seed_folder(folder, name) / "network.pkl"
            weights, arguments, _ = nvidia.recorded(f"stylegan3_{name}_32")
            nvidia.write(program, {"G_ema": nvidia.stylegan3_tree(weights, arguments)}, protocol)


def rosinality_pt(folder: Path) -> None:
    full = rosinality.META["shapes"]["generator"]
    shapes = {name: ([16 if side == 512 else side for side in shape], kind) for name, (shape, kind) in full.items()}
    weights = {name: torch.from_numpy(value) for name, value in rosinality.fill.fill(shapes, 0).items()}
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    for name in ("convs.0.conv.blur.kernel", "to_rgbs.0.upsample.kernel"):
        weights[name] = torch.outer(taps, taps) / 16
    content = {"g_ema": weights, "latent_avg": torch.linspace(-1, 1, rosinality.META["style_dim"])}
    torch.save(content, seed_folder(folder, "zip") / "model.pt")
    save_file(weights, seed_folder(folder, "safetensors") / "model.pt")
    flat, end = torch.cat([value.flatten() for value in weights.values()]), 0
    views = {}  # one storage, as the order of several ones would differ between runs
    for name, value in weights.items():
        views[name] = flat[end : end + value.numel()].view(value.shape)
        end += value.numel()
    legacy = {"g_ema": views, "latent_avg": flat[:64]}
    torch.save(legacy, seed_folder(folder, "legacy") / "model.pt", _use_new_zipfile_serialization=False)
    e4e = {"state_dict": {f"decoder.{name}": value for name, value in weights.items()}}
    torch.save({**e4e, "latent_avg": content["latent_avg"].repeat(6, 1)}, seed_folder(folder, "e4e") / "model.pt")


@functools.cache
def _diffae_weights() -> dict[str, torch.Tensor]:
    sizes = {"multiples": (1, 1), "encoder": (1, 1, 1), "z_dim": 8, "embed": 16}
    return diffae.Layout(**{**diffae.SMALL, **sizes}).random()


def diffae_ckpt(folder: Path) -> None:
    content = diffae.lightning(_diffae_weights())
    content["state_dict"] = {name: one for name, one in content["state_dict"].items() if not name.startswith("model.")}
    seed = seed_folder(folder, "two")
    torch.save(content, seed / "last.ckpt")
    torch.save({"conds": torch.eye(8), "conds_mean": torch.zeros(8), "conds_std": torch.ones(8)}, seed / "latent.ckpt")


def diffusers_folder(folder: Path) -> None:
    diffusion_models.ddpm(seed_folder(folder, "ddpm"))
    diffusion_models.ddim(seed_folder(folder, "ddim"), beta_schedule="scaled_linear", prediction_type="v_prediction")
    diffusion_models.ldm(seed_folder(folder, "ldm"))
    diffusion_models.unet().save_pretrained(seed_folder(folder, "unet"))
    pipeline = diffusion_models.DDPMPipeline(diffusion_models.unet(), diffusion_models.DDPMScheduler())
    pipeline.save_pretrained(seed_folder(folder, "bin"), safe_serialization=False)
    pipeline.save_pretrained(seed_folder(folder, "fp16"), variant="fp16")
    diffusion_models.unet().save_pretrained(seed_folder(folder, "shards"), max_shard_size="50KB")
    pipeline.save_pretrained(seed_folder(folder, "pndm"))
    PNDMScheduler().save_pretrained(folder / "pndm" / "scheduler")
