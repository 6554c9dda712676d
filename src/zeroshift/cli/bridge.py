"""`zeroshift bridge`: fits the bridge from texts to images that the method compass needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from zeroshift.cli.arguments import call, tracked
from zeroshift.cli.output import show_result
from zeroshift.errors import ZeroshiftError
from zeroshift.io.outputs import require_outputs

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    def command(
        images: Path,
        *,
        encoder: str,
        out: Path = Path("bridge.safetensors"),
        attributes: Path | None = None,
        num: int | None = None,
        device: Literal["auto", "cpu"] = "auto",
    ) -> None:
        """Fit a bridge from the texts to the images of an encoder, to captioned images (docs/compass.md).

        The method compass needs one for each guidance encoder. The embedded encoder ships its own. Any images with
        captions will do, best of the kind that the generator draws; some thousand are enough.

        Examples:
          zeroshift bridge --images captioned-faces --encoder ViT-B-32-quickgelu/openai
          zeroshift adapt --generator ffhq --method compass --bridges bridge.safetensors --target sketch

        Args:
            images: Folder of captioned images: text files beside the images (cat.jpg, cat.txt), or a table
                metadata.jsonl or metadata.csv with the columns file_name and text.
            encoder: The guidance encoder, as in `zeroshift adapt --encoders`.
            out: File to write.
            attributes: JSON file of what captions can say about an image: {"glasses": ["round glasses", "no glasses"],
                ...}. Default: a list for portraits.
            num: Use at most so many images. Default: all.
            device: "auto": the accelerator, if there is one; "cpu".

        Raises:
            ZeroshiftError: If a file cannot be read, or there are too few images.
        """
        if num is not None and num < 1:
            raise ZeroshiftError(f"--num is {num}; it must be at least 1.")
        require_outputs(out)
        from zeroshift.api.bridges import fit  # takes seconds

        bridge = fit(images, encoder, attributes=attributes, num=num, device=device, track=tracked)
        from zeroshift.clip.bridge import save_bridge

        save_bridge(bridge, out)
        note = f"Captions predict {bridge.explained:.0%} of the variance of the features of images left out of the fit."
        show_result(f"{out}\n{note}", path=out, explained=bridge.explained)

    call(command, "bridge", arguments)
