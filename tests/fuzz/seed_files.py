"""The other undamaged files: encoders, networks, images, runs, benchmarks. See `generator_files`."""

import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from tests.fuzz.generator_files import GENERATOR, seed_folder
from tests.helpers import diffusion_models
from tests.helpers.benchmark_plans import make_plan, make_record
from tests.helpers.tiny_models import ENCODER_CONFIG, save_tiny_encoder, save_tiny_generator
from tests.networks import test_networks as networks
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.evaluation.results import Result, append_result
from zeroshift.generators import load_generator
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.inversion.codes import invert
from zeroshift.inversion.inverted import Inverted
from zeroshift.io.images import save_png
from zeroshift.methods.config_file import to_json
from zeroshift.methods.domain_vector import Modulation
from zeroshift.miniature.benchmark import records as benchmark
from zeroshift.miniature.benchmark.plan import BenchmarkPlan
from zeroshift.miniature.networks.encoders import Evaluator, Probe
from zeroshift.miniature.networks.photo_encoder import PhotoEncoder
from zeroshift.miniature.training.loop import average, run_training
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.trainer import adapt

ENCODER, DIFFUSION = "encoder.safetensors", "diffusion"
"""Undamaged files in the current folder of every case, with GENERATOR."""
OPEN_CLIP_MODEL = "zeroshift-fuzz"
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


def own_encoder(folder: Path) -> None:
    save_tiny_encoder(seed_folder(folder, "plain") / ENCODER)


def register_open_clip_model(folder: Path) -> None:
    """Adds the tiny model to those of open_clip."""
    path = folder / f"{OPEN_CLIP_MODEL}.json"
    path.write_text(json.dumps(ENCODER_CONFIG), encoding="utf-8")
    open_clip.add_model_config(path)


def open_clip_weights(folder: Path) -> None:
    model = open_clip.CLIP(**ENCODER_CONFIG).eval()
    torch.save(model.state_dict(), seed_folder(folder, "zip") / "weights.pt")
    torch.save({"state_dict": model.state_dict()}, seed_folder(folder, "training") / "weights.pt")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, seed_folder(folder, "safetensors") / "weights.safetensors")
    texts = torch.zeros(1, ENCODER_CONFIG["text_cfg"]["context_length"], dtype=torch.long)
    script = torch.jit.trace(model, (torch.zeros(1, 3, 16, 16), texts), check_trace=False)
    whole = io.BytesIO()
    torch.jit.save(script, whole)
    path = seed_folder(folder, "script") / "weights.pt"
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(path, "w") as steady:
        for name in archive.namelist():
            if not name.endswith(".debug_pkl"):  # with the paths of source files
                steady.writestr(zipfile.ZipInfo(name), archive.read(name))


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
            path = seed_folder(folder, f"{kind}-{mode.replace(';', '')}") / f"image{suffixes[kind]}"
            try:
                image.save(path, format=kind)
                Image.open(path).load()
            except (OSError, ValueError, KeyError, TypeError, NotImplementedError):  # the format has no such mode
                path.unlink(missing_ok=True)
                path.parent.rmdir()


def image_folder(folder: Path) -> None:
    seed = seed_folder(folder, "plain")
    for index, suffix in enumerate((".png", ".jpg", ".webp", ".bmp", ".tiff")):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 24, 3)).astype(np.uint8)
        (seed / "more").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(seed / ("more" if index % 2 else "") / f"{index}{suffix}")


def finished_run(folder: Path) -> None:
    """A run with its report, previews, checkpoint and results."""
    path = seed_folder(folder, "plain") / "run"
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

    path = seed_folder(folder, "plain") / "run"
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
    (seed_folder(folder, "nada") / "config.json").write_text(to_json(RUN), encoding="utf-8")
    sampled = replace(RUN, generator=DIFFUSION, family="diffusion", sampling=INVERSION)
    (seed_folder(folder, "diffusion") / "config.json").write_text(to_json(sampled), encoding="utf-8")


def domain_vector(folder: Path) -> None:
    source = load_generator(GENERATOR)
    described = {"source": "photo", "target": "zombie", "architecture": source.architecture, "config": source.config}
    save_file(
        {"vector": Modulation(source).vector.detach().clone()},
        seed_folder(folder, "plain") / "domain-vector.safetensors",
        metadata={"zeroshift": json.dumps(described)},
    )


def inversion_images() -> torch.Tensor:
    return torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)


def inversions(folder: Path) -> None:
    generator = load_generator(DIFFUSION)
    generator.configure(INVERSION)
    invert(generator, inversion_images(), seed_folder(folder, "plain"))


def inverted_photo(folder: Path) -> None:
    generator = load_generator(GENERATOR)
    with torch.no_grad():
        codes = generator.codes(generator.sample_latents(0, range(1)))[0].clone()
    changes = {"synthesis.b4.conv1.bias": torch.full_like(generator.synthesis.b4.conv1.bias, 0.1)}
    record = {"inversion": "stylegan", "space": "w+", "psnr": 30.0}
    Inverted(codes, changes, record).save(seed_folder(folder, "plain") / "me.safetensors")


def photo_encoder(folder: Path) -> None:
    config = {"channels": [4, 4, 8, 8], "num_ws": 4, "w_dim": 8}
    described = {"photo_encoder_config": config}
    _save_described(PhotoEncoder(**config), seed_folder(folder, "plain") / "photo_encoder.safetensors", described)


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
    (seed_folder(folder, "plain") / "benchmark.json").write_text(json.dumps(page), encoding="utf-8")


def benchmark_trials(folder: Path) -> None:
    plan = benchmark_plan(seed_folder(folder, "plain"))
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
    seed = seed_folder(folder, "plain")
    (seed / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(model.state_dict(), seed / "model.safetensors")


def hed(folder: Path) -> None:
    torch.save(networks.hed_state(), seed_folder(folder, "zip") / "hed.pytorch")


def dinov2(folder: Path) -> None:
    import timm

    model = timm.create_model("vit_small_patch14_dinov2", img_size=518, num_classes=0)
    torch.save({**model.state_dict(), "mask_token": torch.zeros(1, 384)}, seed_folder(folder, "zip") / "dinov2.pth")


def evaluator(folder: Path) -> None:
    text = {"context_length": 24, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}
    config = {"embed_dim": 8, "channels": [4, 4, 8, 8], "text_cfg": text}
    about = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "templates": ["a {}"]}
    about |= {"known_words": ["a"], "known_labels": ["photo"], "judge_config": config}
    _save_described(Evaluator(**config), seed_folder(folder, "plain") / "judge.safetensors", about)


def probe(folder: Path) -> None:
    config = {"channels": [4, 4, 8, 8], "face_channels": [4, 8], "face_width": 8}
    _save_described(Probe(**config), seed_folder(folder, "plain") / "probe.safetensors", {"probe_config": config})


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
    seed = seed_folder(folder, "plain")
    train(seed, steps=2)
    state = torch.load(seed / "checkpoint.pt", weights_only=True)
    with open(seed / "checkpoint.pt", "wb") as file:  # a file's own name would be in it
        torch.save(state, file)
    _without_times(seed / "log.jsonl")


def cached_array(folder: Path) -> None:
    np.save(seed_folder(folder, "plain") / "images.npy", np.zeros((2, 3, 8, 8), np.uint8))


def trusted(folder: Path) -> None:
    text = f"json:loads\t{json.__file__}\nmissing:module\t\n"
    (seed_folder(folder, "plain") / "trusted-factories.txt").write_text(text, encoding="utf-8")
