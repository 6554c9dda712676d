"""The undamaged files that are mutated: tiny models of every kind, made on the fly. Each function fills a folder.

The subfolders of the folder are the seeds; a reader gets one of them, mutated.
"""

import functools
import json
import shutil
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from tests.fuzz.pickles import CANARY
from tests.generators.checkpoints import test_diffae as diffae
from tests.generators.checkpoints import test_nvidia as nvidia
from tests.generators.checkpoints import test_rosinality as rosinality
from tests.helpers import diffusion_models
from tests.helpers.benchmark_plans import make_plan, make_record
from tests.helpers.tiny_models import ENCODER_CONFIG, save_tiny_encoder, save_tiny_generator
from tests.networks import test_networks as networks
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.evaluation.results import Result, append_result
from zeroshift.generators import StyleGAN3, load_generator, save_generator, wrap_generator
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.io.images import save_png
from zeroshift.methods.configure import to_json
from zeroshift.methods.domain_vector import Modulation
from zeroshift.miniature.benchmark import records as benchmark
from zeroshift.miniature.benchmark.plan import BenchmarkPlan
from zeroshift.miniature.networks.encoders import Evaluator, Probe
from zeroshift.miniature.training.loop import average, run_training
from zeroshift.sampling.inversion import invert
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.trainer import adapt

ENCODER, GENERATOR, DIFFUSION = "encoder.safetensors", "generator.safetensors", "diffusion"
"""Undamaged files in the current folder of every case."""
OPEN_CLIP_MODEL = "zeroshift-fuzz"
FEW_STEPS = DDIMOptions(noise_steps=2, steps=1)
INVERSION = DDIMOptions(t0=0.2, noise_steps=1, steps=1, invert_steps=2)
RUN = AdaptConfig(
    target="zombie",
    generator=GENERATOR,
    encoders=(ENCODER,),
    method="nada",
    device="cpu",
    adapt=AdaptStage(steps=2, batch_size=2, layers=("all",)),
    preview_samples=1,
    checkpoint_every=1,
)


def fixed_files(folder: Path) -> None:
    """The undamaged files that other files refer to."""
    save_tiny_encoder(folder / ENCODER)
    save_tiny_generator(folder / GENERATOR)
    diffusion_models.ddpm(folder / DIFFUSION)


def _seed(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    return folder / name


def own_stylegan2(folder: Path) -> None:
    save_tiny_generator(_seed(folder, "plain") / GENERATOR)
    save_generator(load_generator(GENERATOR), _seed(folder, "adapted") / GENERATOR, {"steps": "3", "target": "zombie"})


def own_stylegan3(folder: Path) -> None:
    sizes = {"z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8, "num_layers": 4, "num_critical": 1}
    save_generator(StyleGAN3(16, **sizes, margin_size=4), _seed(folder, "t") / GENERATOR)
    save_generator(StyleGAN3(16, **sizes, margin_size=4, conv_kernel=1, radial=True), _seed(folder, "r") / GENERATOR)


def own_diffusion(folder: Path) -> None:
    for name, make in (("ddpm", diffusion_models.ddpm), ("ldm", diffusion_models.ldm)):
        pipeline = load_generator(make(folder.parent / f"of-{name}"))
        pipeline.configure(FEW_STEPS)
        save_generator(pipeline, _seed(folder, name) / GENERATOR)


def own_autoencoder(folder: Path) -> None:
    generator = diffae.convert(_diffae_weights(), 16)
    generator.configure(FEW_STEPS)
    save_generator(generator, _seed(folder, "plain") / GENERATOR)


def tiny_module() -> nn.Module:
    """A module that `load_generator` can fill."""
    return nn.Sequential(nn.Linear(8, 3 * 8 * 8), nn.Unflatten(1, (3, 8, 8)), nn.Tanh())


def own_module(folder: Path) -> None:
    save_generator(wrap_generator(tiny_module(), (8,), 8), _seed(folder, "plain") / GENERATOR)


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
            program.path = _seed(folder, name) / "network.pkl"
            weights, arguments, _ = nvidia.recorded(model)
            nvidia.write(program, nvidia.snapshot(program, nvidia.stylegan2_tree(weights, arguments)), protocol)


def nvidia_stylegan3(folder: Path) -> None:
    for name, protocol in (("t", None), ("r", 2)):
        with _nvidia_program() as program:
            program.path = _seed(folder, name) / "network.pkl"
            weights, arguments, _ = nvidia.recorded(f"stylegan3_{name}_32")
            nvidia.write(program, {"G_ema": nvidia.stylegan3_tree(weights, arguments)}, protocol)


def rosinality_pt(folder: Path) -> None:
    full = rosinality.META["shapes"]["generator"]
    shapes = {name: ([16 if side == 512 else side for side in shape], kind) for name, (shape, kind) in full.items()}
    weights = {name: torch.from_numpy(value) for name, value in rosinality.fill.fill(shapes, 0).items()}
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    weights["convs.0.conv.blur.kernel"] = weights["to_rgbs.0.upsample.kernel"] = torch.outer(taps, taps) / 16
    content = {"g_ema": weights, "latent_avg": torch.linspace(-1, 1, rosinality.META["style_dim"])}
    torch.save(content, _seed(folder, "zip") / "model.pt")
    flat, end = torch.cat([value.flatten() for value in weights.values()]), 0
    views = {}  # one storage, as the order of several ones would differ between runs
    for name, value in weights.items():
        views[name] = flat[end : end + value.numel()].view(value.shape)
        end += value.numel()
    legacy = {"g_ema": views, "latent_avg": flat[:64]}
    torch.save(legacy, _seed(folder, "legacy") / "model.pt", _use_new_zipfile_serialization=False)
    e4e = {"state_dict": {f"decoder.{name}": value for name, value in weights.items()}}
    torch.save({**e4e, "latent_avg": content["latent_avg"].repeat(6, 1)}, _seed(folder, "e4e") / "model.pt")


@functools.cache
def _diffae_weights() -> dict[str, torch.Tensor]:
    sizes = {"multiples": (1, 1), "encoder": (1, 1, 1), "z_dim": 8, "embed": 16}
    return diffae.Layout(**{**diffae.SMALL, **sizes}).random()


def diffae_ckpt(folder: Path) -> None:
    content = diffae.lightning(_diffae_weights())
    content["state_dict"] = {name: one for name, one in content["state_dict"].items() if not name.startswith("model.")}
    seed = _seed(folder, "two")
    torch.save(content, seed / "last.ckpt")
    torch.save({"conds": torch.eye(8), "conds_mean": torch.zeros(8), "conds_std": torch.ones(8)}, seed / "latent.ckpt")


def diffusers_folder(folder: Path) -> None:
    diffusion_models.ddpm(_seed(folder, "ddpm"))
    diffusion_models.ddim(_seed(folder, "ddim"), beta_schedule="scaled_linear", prediction_type="v_prediction")
    diffusion_models.ldm(_seed(folder, "ldm"))
    diffusion_models.unet().save_pretrained(_seed(folder, "unet"))
    pipeline = diffusion_models.DDPMPipeline(diffusion_models.unet(), diffusion_models.DDPMScheduler())
    pipeline.save_pretrained(_seed(folder, "bin"), safe_serialization=False)


def own_encoder(folder: Path) -> None:
    save_tiny_encoder(_seed(folder, "plain") / ENCODER)


def register_open_clip_model(folder: Path) -> None:
    """Adds the tiny model to those of open_clip."""
    path = folder / f"{OPEN_CLIP_MODEL}.json"
    path.write_text(json.dumps(ENCODER_CONFIG), encoding="utf-8")
    open_clip.add_model_config(path)


def open_clip_weights(folder: Path) -> None:
    model = open_clip.CLIP(**ENCODER_CONFIG).eval()
    torch.save(model.state_dict(), _seed(folder, "zip") / "weights.pt")
    torch.save({"state_dict": model.state_dict()}, _seed(folder, "training") / "weights.pt")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, _seed(folder, "safetensors") / "weights.safetensors")


def images(folder: Path) -> None:
    """One file per format and mode that Pillow writes."""
    Image.init()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 4)).astype(np.uint8)
    rgba = Image.fromarray(pixels, "RGBA")
    suffixes: dict[str, str] = {}
    for suffix, kind in sorted(Image.registered_extensions().items()):
        suffixes.setdefault(kind, suffix)
    for kind in sorted(set(Image.SAVE) & set(Image.OPEN) & set(suffixes)):
        for mode in ("RGB", "RGBA", "LA", "L", "P", "1", "I;16", "F", "CMYK"):
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else rgba.convert(mode)
            path = _seed(folder, f"{kind}-{mode.replace(';', '')}") / f"image{suffixes[kind]}"
            try:
                image.save(path, format=kind)
                Image.open(path).load()
            except (OSError, ValueError, KeyError, TypeError, NotImplementedError):  # the format has no such mode
                path.unlink(missing_ok=True)
                path.parent.rmdir()


def image_folder(folder: Path) -> None:
    seed = _seed(folder, "plain")
    for index, suffix in enumerate((".png", ".jpg", ".webp", ".bmp", ".tiff")):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 24, 3)).astype(np.uint8)
        (seed / "more").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(seed / ("more" if index % 2 else "") / f"{index}{suffix}")


def finished_run(folder: Path) -> None:
    """A run with its report, previews, checkpoint and results."""
    path = _seed(folder, "plain") / "run"
    run = RunFolder.open(path, RUN)
    adapt(RUN, run)
    _steady(path)
    for measure in ("fid", "diversity"):
        numbers = {"samples": 10, "references": 10, "reference": "x", "seed": 0, "truncation_psi": 0.7, "steps": 2}
        result = Result(measure, 1.5, 0.1, "lower", "protocol", "inception", **numbers, time="2026-01-01T00:00:00Z")
        append_result(run, result)


def stopped_run(folder: Path) -> None:
    """A run after its first step, to be resumed."""

    class Stop:
        def update(self, stage: str, step: int, steps: int, losses: object) -> None:
            if step == 2:
                raise KeyboardInterrupt

    path = _seed(folder, "plain") / "run"
    with pytest.raises(KeyboardInterrupt):
        adapt(RUN, RunFolder.open(path, RUN), progress=Stop())
    _steady(path)


def _steady(run: Path) -> None:
    """Removes what depends on the clock: times and the files of TensorBoard."""
    _without_times(run / "metrics.jsonl")
    shutil.rmtree(run / "events", ignore_errors=True)


def _without_times(log: Path) -> None:
    records = [{**json.loads(line), "seconds": 0.5} for line in log.read_text(encoding="utf-8").splitlines()]
    log.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def config(folder: Path) -> None:
    (_seed(folder, "nada") / "config.json").write_text(to_json(RUN), encoding="utf-8")
    sampled = replace(RUN, generator=DIFFUSION, family="diffusion", sampling=INVERSION)
    (_seed(folder, "diffusion") / "config.json").write_text(to_json(sampled), encoding="utf-8")


def domain_vector(folder: Path) -> None:
    source = load_generator(GENERATOR)
    described = {"source": "photo", "target": "zombie", "architecture": source.architecture, "config": source.config}
    save_file(
        {"vector": Modulation(source).vector.detach().clone()},
        _seed(folder, "plain") / "domain-vector.safetensors",
        metadata={"zeroshift": json.dumps(described)},
    )


def inversion_images() -> torch.Tensor:
    return torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)


def inversions(folder: Path) -> None:
    generator = load_generator(DIFFUSION)
    generator.configure(INVERSION)
    invert(generator, inversion_images(), _seed(folder, "plain"))


def benchmark_plan(out: Path, **changes: object) -> BenchmarkPlan:
    return make_plan(out, "nada", "ipl", "source", **changes)


def _records(plan: BenchmarkPlan) -> list[dict[str, object]]:
    return [
        {
            **make_record(*trial.key, 0.5),
            "provenance": benchmark.provenance(plan, trial),
            "evaluated_by": benchmark.evaluators(),
        }
        for trial in plan.trials()
    ]


def benchmark_page(folder: Path) -> None:
    trials = _records(benchmark_plan(folder))
    page = {"command": "zeroshift benchmark", "baseline": "nada", "compared": {}, "trials": trials}
    (_seed(folder, "plain") / "benchmark.json").write_text(json.dumps(page), encoding="utf-8")


def benchmark_trials(folder: Path) -> None:
    plan = benchmark_plan(_seed(folder, "plain"))
    for trial, record in zip(plan.trials(), _records(plan), strict=True):
        benchmark.write_record(plan, trial, record)
        save_png(benchmark.image_path(plan, trial), np.zeros((64, 64 * 16, 3), np.uint8))


def face_folder(folder: Path) -> None:
    import timm

    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 20,
        "pretrained_cfg": {"input_size": [3, 32, 32], "fixed_input_size": True, "mean": [0.5] * 3, "std": [0.5] * 3},
        "model_args": {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2},
    }
    model = timm.create_model("vit_tiny_patch16_224", num_classes=20, img_size=32, **config["model_args"])
    seed = _seed(folder, "plain")
    (seed / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(model.state_dict(), seed / "model.safetensors")


def hed(folder: Path) -> None:
    torch.save(networks.hed_state(), _seed(folder, "zip") / "hed.pytorch")


def dinov2(folder: Path) -> None:
    import timm

    model = timm.create_model("vit_small_patch14_dinov2", img_size=518, num_classes=0)
    torch.save({**model.state_dict(), "mask_token": torch.zeros(1, 384)}, _seed(folder, "zip") / "dinov2.pth")


def evaluator(folder: Path) -> None:
    text = {"context_length": 24, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}
    config = {"embed_dim": 8, "channels": [4, 4, 8, 8], "text_cfg": text}
    about = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "templates": ["a {}"]}
    about |= {"known_words": ["a"], "known_labels": ["photo"], "judge_config": config}
    _save_described(Evaluator(**config), _seed(folder, "plain") / "judge.safetensors", about)


def probe(folder: Path) -> None:
    config = {"channels": [4, 4, 8, 8], "face_channels": [4, 8], "face_width": 8}
    _save_described(Probe(**config), _seed(folder, "plain") / "probe.safetensors", {"probe_config": config})


def _save_described(model: nn.Module, path: Path, metadata: dict[str, object]) -> None:
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, path, {name: json.dumps(value) for name, value in metadata.items()})


def train(folder: Path, steps: int) -> torch.Tensor:
    """A training of the miniature world's kind."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    parts = {"model": model, "optimizer": optimizer, "average": average(model, 0.9)}

    def update(step: int) -> dict[str, torch.Tensor]:
        loss = model(torch.ones(1, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    run_training(folder, parts, update, steps=steps, settings={"seed": 0}, log_every=1)
    return model.weight.detach()


def training_state(folder: Path) -> None:
    seed = _seed(folder, "plain")
    train(seed, steps=2)
    state = torch.load(seed / "checkpoint.pt", weights_only=True)
    with open(seed / "checkpoint.pt", "wb") as file:  # a file's own name would be in it
        torch.save(state, file)
    _without_times(seed / "log.jsonl")


def cached_array(folder: Path) -> None:
    np.save(_seed(folder, "plain") / "images.npy", np.zeros((2, 3, 8, 8), np.uint8))


def trusted(folder: Path) -> None:
    text = f"json:loads\t{json.__file__}\nmissing:module\t\n"
    (_seed(folder, "plain") / "trusted-factories.txt").write_text(text, encoding="utf-8")
