"""Tiny finished runs and a feature network that counts images, for tests of `evaluate`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from zeroshift import RunFolder
from zeroshift.config.settings import AdaptConfig
from zeroshift.generators.checkpoints.files import load_generator, save_generator
from zeroshift.io.images import save_png
from zeroshift.networks.base import FeatureNetwork

FEW = "ignore:.*(an Inception Score of|are too few for)"  # warnings, as tests draw few samples


def make_run(generator: Path, folder: Path, scale: float = 1.2, **fields: object) -> RunFolder:
    config = AdaptConfig(target="zombie", generator=str(generator), encoders=("ViT-B-32/openai",), device="cpu")
    run = RunFolder.open(folder, replace(config, **fields))
    target = load_generator(generator)
    with torch.no_grad():
        for parameter in target.synthesis.parameters():
            parameter.mul_(scale)
    save_generator(target, run.generator_path, {"steps": str(run.config.adapt.steps)})
    return run


def make_pictures(folder: Path) -> Path:
    """A folder of images that are not square and differ in size, and a file that is not an image."""
    random = np.random.default_rng(0)
    for index in range(14):
        size = (20 + index, 24)
        pixels = np.kron(random.integers(0, 256, (*(side // 4 + 1 for side in size), 3)), np.ones((4, 4, 1)))
        save_png(folder / str(index % 2) / f"{index:02d}.png", pixels[: size[0], : size[1]].astype(np.uint8))
    (folder / ".notes.txt").write_text("not a picture")
    return folder


class Counting(FeatureNetwork):
    """Counts the images it gets; its features are their mean colors."""

    provides = frozenset({"features", "classes", "edges", "perceptual"})

    def __init__(self, most: int = 1000) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []
        self._most = most

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self._most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        self.batches.append(len(images))
        return images.mean(dim=(2, 3))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        return 5 * features
