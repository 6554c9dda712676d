"""How exact the solvers of diffusion models are, by the number of network evaluations.

    python benchmarks/solvers.py --generators miniature-autoencoder miniature-diffusion

Prints PSNR in dB, and the cosine between the features of the encoder, per model:

- noise: from pure noise to t0, and on to the image in many steps; compared with many steps throughout,
- images: from t0 to the image, compared with many steps,
- photos: images inverted and computed again, in as many steps each way, compared with themselves.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import replace

import torch
import tyro
from torch import Tensor

from zeroshift.clip.loading import load_encoder
from zeroshift.clip.losses import normalize
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.generators.diffusion.solvers import SOLVERS

REFERENCE = "dpm-solver++"  # the solver of the images to compare with


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    generators: tuple[str, ...] = ("miniature-autoencoder", "miniature-diffusion")
    """Diffusion models."""
    encoder: str = "miniature"
    """The encoder of the features."""
    noise_steps: tuple[int, ...] = (2, 3, 4, 8)
    steps: tuple[int, ...] = (4, 6, 12)
    invert_steps: tuple[int, ...] = (4, 6, 8, 12, 24)
    many: int = 40
    """Steps of the images to compare with."""
    samples: int = 8
    t0: float = 0.6
    seed: int = 0


def main(arguments: Arguments) -> dict[str, dict[str, tuple[float, float]]]:
    """Prints and returns PSNR and cosine: by model, then by table, number of steps and solver."""
    encoder = load_encoder(arguments.encoder)

    def compare(images: Tensor, others: Tensor) -> tuple[float, float]:
        shown, expected = images.clamp(-1, 1), others.clamp(-1, 1)
        errors = (shown - expected).square().flatten(1).mean(dim=1)
        features = [normalize(encoder.encode_image(each)) for each in (shown, expected)]
        return float((10 * (4 / errors).log10()).mean()), float((features[0] * features[1]).sum(dim=1).mean())

    results = {}
    for name in arguments.generators:
        generator = load_generator(name)
        if not isinstance(generator, Diffusion):
            raise SystemExit(f"{name} is not a diffusion model.")
        with torch.inference_mode():
            results[name] = _measure(generator, arguments, compare)
        print(f"\n{name}\n")
        for key, (psnr, cosine) in results[name].items():
            print(f"{key:32s} {psnr:5.1f} dB  {cosine:.4f}", flush=True)
    return results


def _measure(
    generator: Diffusion, arguments: Arguments, compare: Callable[[Tensor, Tensor], tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    many = arguments.many
    best = DDIMOptions(arguments.t0, many, many, many, solver=REFERENCE, clip_sample=False)
    generator.configure(best)
    latents = generator.sample_latents(arguments.seed, range(arguments.samples))
    codes = generator.codes(latents)
    images = generator.synthesize(codes)
    photos = images.clamp(-1, 1)
    found = {}
    for solver in SOLVERS:
        for steps in arguments.noise_steps:
            generator.configure(replace(best, noise_steps=steps, solver=solver))
            codes_of_few = generator.codes(latents)
            generator.configure(best)
            found[f"noise, {steps} {solver}"] = compare(generator.synthesize(codes_of_few), images)
        for steps in arguments.steps:
            generator.configure(replace(best, steps=steps, solver=solver))
            found[f"images, {steps} {solver}"] = compare(generator.synthesize(codes), images)
        for steps in arguments.invert_steps:
            generator.configure(replace(best, steps=steps, invert_steps=steps, solver=solver))
            found[f"photos, {steps} + {steps} {solver}"] = compare(
                generator.synthesize(generator.invert(photos)), photos
            )
    return found


if __name__ == "__main__":
    main(tyro.cli(Arguments))
