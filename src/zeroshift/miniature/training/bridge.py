"""The recipe of the guidance encoder's bridge from texts to images: `zeroshift miniature train bridge`.

The bridge sees the images and captions of the encoder's own training, so held-out pairs never occur. People are not
followed from one domain to another: each image is used with its own caption only.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from zeroshift.clip.bridge import fit_bridge, save_bridge
from zeroshift.clip.loading import load_encoder
from zeroshift.errors import ZeroshiftError
from zeroshift.io.outputs import require_writable
from zeroshift.miniature.networks.encoders import weights_path
from zeroshift.miniature.training.data import Batch, Blocks
from zeroshift.miniature.world.captions import attributes, captions

__all__ = ["block_captions", "train_bridge"]

_FEWEST, _MOST = 2, 9  # factors that a caption names


def train_bridge(
    *,
    images: Path = Path("training/blocks"),
    blocks: int = 100,
    block_seed: int = 1,
    encoder: str = "miniature",
    threads: int = 1,
    weights: Path | None = None,
) -> None:
    """Fit the bridge from text features to image features of the guidance encoder (a few minutes).

    Examples:
      zeroshift miniature train bridge --images training/blocks --threads 2

    Args:
        images: Folder of rendered training images, shared with the guidance encoder. Missing images are rendered.
        blocks: Number of blocks of 384 images.
        block_seed: Selects the people in the images.
        encoder: The encoder: a registered name or a file.
        threads: Number of processor cores to use.
        weights: File to write. Default: replace the shipped file.

    Raises:
        ZeroshiftError: If there are too few images.
    """
    if blocks < 1:
        raise ZeroshiftError(f"--blocks is {blocks}; it must be at least 1.")
    torch.set_num_threads(threads)
    out = weights or weights_path("bridge")
    require_writable(out.parent)
    data = Blocks(images, blocks, block_seed)

    def batches() -> Iterator[tuple[Tensor, list[str]]]:
        for number in track(range(blocks), description="reading images and captions"):
            block = data.block(number)
            yield block.images, block_captions(block, f"{block_seed}/{number}")

    bridge = fit_bridge(load_encoder(encoder), batches(), attributes())
    save_bridge(bridge, out)
    print(f"{out}: {bridge.explained:.0%} of the variance of image features is predicted from captions.")


def block_captions(block: Batch, seed: str) -> list[str]:
    """A caption for each image of a block."""
    return captions(
        block.latents, block.domains, seed=f"bridge/{seed}", num_details=lambda rng: rng.randint(_FEWEST, _MOST)
    )
