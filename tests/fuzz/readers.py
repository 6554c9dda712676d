"""Every reader of the package, called as its command calls it."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.fuzz import generator_files as generators
from tests.fuzz import seed_files as seeds
from zeroshift.benchmark import tables
from zeroshift.benchmark.measures import compare_variants
from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder
from zeroshift.core.finite import require_finite_images
from zeroshift.generators import Generator, generator_metadata, load_generator
from zeroshift.generators.checkpoints.architectures import architecture_of
from zeroshift.generators.checkpoints.catalogue import find_entry
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.generators.trust import is_trusted
from zeroshift.inversion.codes import invert, read_folder
from zeroshift.inversion.inverted import Inverted, render
from zeroshift.io.image_files import read_image
from zeroshift.io.images import square, to_uint8
from zeroshift.methods.config_file import from_json
from zeroshift.methods.configure import default_config, flat, resolve
from zeroshift.methods.domain_vector import apply_vector
from zeroshift.miniature.benchmark import records as benchmark
from zeroshift.miniature.benchmark.measures import MEASURES, comparable
from zeroshift.miniature.networks.encoders import load_evaluator, load_probe
from zeroshift.miniature.networks.photo_encoder import load_photo_encoder
from zeroshift.miniature.training.cache import cached_images
from zeroshift.networks.registry import load_network
from zeroshift.report.page import write_report
from zeroshift.sampling.generate import render_batches
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.run_generators import load_source_and_target
from zeroshift.training.trainer import adapt

__all__ = ["READERS", "Reader"]


@dataclass(frozen=True)
class Reader:
    """A reader and its undamaged files."""

    make: Callable[[Path], None]
    """Writes the seeds: subfolders of a folder."""
    read: Callable[[Path], Any]
    """Reads the files in a folder and uses them once. Returns tensors, which must be finite."""
    share: int = 3
    """How often a case has this reader, relative to the others."""
    writes: bool = False
    """Whether the command writes into the folder that it reads."""
    names_file: bool = True
    """Whether it knows the name of the file, which its messages then must state."""


def _picture(generator: Generator) -> torch.Tensor:
    """One image, as `zeroshift generate` draws it."""
    if isinstance(generator, Diffusion) and generator.options == DDIMOptions():
        generator.configure(generators.FEW_STEPS)  # those of a file are kept
    latents = generator.sample_latents(0, range(1))
    classes = 0 if generator.num_classes else None
    images = next(iter(render_batches([generator], latents, truncation_psi=0.7, class_index=classes)))[0]
    to_uint8(images)
    return images


def _generator(name: str) -> Callable[[Path], Any]:
    return lambda folder: _picture(load_generator(folder / name))


def _module(folder: Path) -> Any:
    return _picture(load_generator(folder / generators.GENERATOR, module=generators.tiny_module()))


def _header(folder: Path) -> None:
    """What the command line asks about a generator before it loads it."""
    path = folder / generators.GENERATOR
    architecture_of(path)
    find_entry(path)
    flat(default_config(str(path)))
    json.dumps(generator_metadata(path))


@torch.no_grad()
def _encoded(encoder: Encoder) -> None:
    """Features that are not finite, from weights that are huge, are refused where they are used."""
    encoder.warn_unknown("a zombie")
    encoder.encode_image(torch.zeros(1, 3, 16, 16))
    encoder.label_feature("zombie")


def _open_clip(folder: Path) -> Any:
    names = sorted(path.name for path in folder.iterdir())
    name = next((one for one in names if one.startswith("weights")), "weights.pt")
    return _encoded(load_encoder(f"{seeds.OPEN_CLIP_MODEL}/{folder / name}"))


def _image(folder: Path) -> Any:
    names = sorted(path.name for path in folder.iterdir())
    image = square(read_image(folder / next((one for one in names if one.startswith("image")), "image.png")), 16)
    assert image.shape == (3, 16, 16)
    assert image.abs().max() <= 1
    return image


def _config(folder: Path) -> None:
    flat(resolve(RunFolder.read(folder).config))


def _config_text(folder: Path) -> None:
    path = folder / "config.json"
    plain = path.is_file() and not path.is_symlink()
    from_json(path.read_bytes().decode("utf-8", "replace") if plain else "")


def _run(folder: Path) -> Any:
    run = RunFolder.read(folder / "run")
    source, target = load_source_and_target(run)
    return _picture(source), _picture(target)


def _report(folder: Path) -> None:
    write_report(RunFolder.read(folder / "run"))


def _resume(folder: Path) -> Any:
    return _picture(adapt(seeds.RUN, RunFolder.open(folder / "run", seeds.RUN)).generator)


def _records(folder: Path) -> None:
    for record in RunFolder(folder / "run", seeds.RUN).records():
        assert isinstance(record, dict)


def _domain_vector(folder: Path) -> Any:
    return _picture(apply_vector(load_generator(generators.GENERATOR), folder / "domain-vector.safetensors"))


@cache
def _clean_codes() -> torch.Tensor:
    generator = load_generator(seeds.DIFFUSION)
    generator.configure(seeds.INVERSION)
    return generator.invert(seeds.inversion_images())


def _inversions(folder: Path) -> Any:
    generator = load_generator(seeds.DIFFUSION)
    generator.configure(seeds.INVERSION)
    codes = invert(generator, seeds.inversion_images(), folder)
    assert codes.shape == _clean_codes().shape
    require_finite_images(generator.synthesize(codes))  # as `zeroshift translate` does
    return codes


def _benchmark_page(folder: Path) -> None:
    previous = benchmark.read_previous(folder / "benchmark.json")
    _tables(seeds.benchmark_plan(Path("nowhere"), previous=previous))


def _benchmark_trials(folder: Path) -> None:
    _tables(seeds.benchmark_plan(folder))


def _tables(plan: Any) -> None:
    """The tables of a benchmark's page."""
    benchmark.missing_trials(plan)
    records = comparable(benchmark.finished_records(plan))
    compared = {"ipl": compare_variants(records, "ipl", "nada", MEASURES)}
    if records:
        tables.summary(records, ["nada", "ipl"], compared, "nada", MEASURES, {"accuracy": "{:.1%}"})
    tables.mean_table(records, ["nada", "ipl", "source"], MEASURES)
    tables.comparison_table(compared, "nada", MEASURES)
    tables.target_table(records, ["nada", "ipl", "source"], "zombie", MEASURES)


def _network(kind: str, name: str = "") -> Callable[[Path], Any]:
    @torch.inference_mode()
    def read(folder: Path) -> None:
        load_network.cache_clear()
        try:
            load_network(f"{kind}:{folder / name if name else folder}")(torch.zeros(1, 3, 32, 32))
        finally:
            load_network.cache_clear()

    return read


@torch.no_grad()
def _evaluator(folder: Path) -> None:
    encoder = load_evaluator(folder / "judge.safetensors")
    encoder.encode_image(torch.zeros(1, 3, 64, 64))
    encoder.label_feature("photo")


@torch.no_grad()
def _probe(folder: Path) -> None:
    load_probe(folder / "probe.safetensors")(torch.zeros(1, 3, 64, 64))


@torch.no_grad()
def _inverted(folder: Path) -> Any:
    photo = Inverted.load(folder / "me.safetensors")
    image = render(load_generator(generators.GENERATOR), photo.codes[None], photo.changes)
    require_finite_images(image)  # as `zeroshift translate` does
    return image


@torch.no_grad()
def _photo_encoder(folder: Path) -> None:
    load_photo_encoder(folder / "photo_encoder.safetensors")(torch.zeros(1, 3, 64, 64))


def _array(folder: Path) -> None:
    cached_images(folder / "images.npy", lambda: torch.zeros(2, 3, 8, 8)).sum()


def _trusted(folder: Path) -> None:
    before = os.environ["ZEROSHIFT_CACHE"]
    os.environ["ZEROSHIFT_CACHE"] = str(folder)
    try:
        assert not is_trusted("missing:function")
        is_trusted("json:loads")
    finally:
        os.environ["ZEROSHIFT_CACHE"] = before


READERS = {
    "StyleGAN2 (own)": Reader(generators.own_stylegan2, _generator(generators.GENERATOR)),
    "StyleGAN3 (own)": Reader(generators.own_stylegan3, _generator(generators.GENERATOR)),
    "diffusion (own)": Reader(generators.own_diffusion, _generator(generators.GENERATOR)),
    "diffusion autoencoder (own)": Reader(generators.own_autoencoder, _generator(generators.GENERATOR)),
    "wrapped module (own)": Reader(generators.own_module, _module),
    "description of a generator": Reader(generators.own_stylegan2, _header),
    "NVIDIA StyleGAN2 .pkl": Reader(generators.nvidia_stylegan2, _generator("network.pkl")),
    "NVIDIA StyleGAN3 .pkl": Reader(generators.nvidia_stylegan3, _generator("network.pkl")),
    "rosinality .pt": Reader(generators.rosinality_pt, _generator("model.pt")),
    "diffusion autoencoder .ckpt": Reader(generators.diffae_ckpt, _generator("last.ckpt")),
    "diffusers folder": Reader(generators.diffusers_folder, _generator(""), share=4),
    "encoder file": Reader(seeds.own_encoder, lambda folder: _encoded(load_encoder(str(folder / seeds.ENCODER)))),
    "open_clip weights": Reader(seeds.open_clip_weights, _open_clip),
    "image": Reader(seeds.images, _image, share=4),
    "folder of images": Reader(seeds.image_folder, lambda folder: read_folder(folder, 16)),
    "settings of a run": Reader(seeds.config, _config),
    "AdaptConfig.from_json": Reader(seeds.config, _config_text, names_file=False),
    "run: generate": Reader(seeds.finished_run, _run),
    "run: report": Reader(seeds.finished_run, _report, writes=True),
    "run: resume": Reader(seeds.stopped_run, _resume, writes=True, share=4),
    "run: log": Reader(seeds.stopped_run, _records),
    "domain vector": Reader(seeds.domain_vector, _domain_vector),
    "cached inversion": Reader(seeds.inversions, _inversions, writes=True),
    "inverted photo": Reader(seeds.inverted_photo, _inverted, names_file=False),
    "benchmark page": Reader(seeds.benchmark_page, _benchmark_page),
    "benchmark trial": Reader(seeds.benchmark_trials, _benchmark_trials),
    "face recognizer": Reader(seeds.face_folder, _network("face")),
    "HED": Reader(seeds.hed, _network("hed", "hed.pytorch"), share=1),
    "DINOv2": Reader(seeds.dinov2, _network("dinov2", "dinov2.pth"), share=1),
    "held-out evaluator": Reader(seeds.evaluator, _evaluator),
    "probe": Reader(seeds.probe, _probe),
    "photo encoder": Reader(seeds.photo_encoder, _photo_encoder),
    "miniature training": Reader(seeds.training_state, lambda folder: seeds.train(folder, 3), writes=True),
    "miniature images": Reader(seeds.cached_array, _array, share=1, writes=True),
    "trusted factories": Reader(seeds.trusted, _trusted, share=1),
}
