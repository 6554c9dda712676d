"""Augmentations of training images."""

import torch

from zeroshift.miniature.training.augment import Augmentation, augment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_augmentation_is_a_function_of_its_generator():
    images = torch.rand(6, 3, 64, 64, generator=generator()) * 2 - 1
    how = Augmentation(0.1, 0.05, 0.3, 0.2, 0.5, 0.5, 0.5, 0.5, 0.3)
    first, second, other = (augment(images, how, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.abs().max() <= 1
    assert torch.equal(augment(images, Augmentation(), generator()), images)


def test_blur_keeps_flat_areas_and_the_mean():
    images = torch.zeros(2, 3, 64, 64)
    images[:, :, 32, 32] = 1
    blurred = augment(images, Augmentation(blur=1.0), generator())
    assert blurred.max() < 0.7
    torch.testing.assert_close(blurred.sum(), images.sum())
