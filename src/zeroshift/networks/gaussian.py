"""Gaussians fitted to features, for Fréchet distances."""

import torch
from torch import Tensor

from zeroshift.core.dtypes import float64

__all__ = ["Gaussian", "gaussian"]

Gaussian = tuple[Tensor, Tensor]  # mean [..., D] and root [..., K, D] with root^T root = covariance


def gaussian(features: Tensor) -> Gaussian:
    """Mean and unbiased covariance of features [..., n, D], n at least 2, in float64.

    The covariance is returned as a root [..., min(n, D), D] from a QR decomposition, which is well conditioned.
    """
    x = float64(features)
    mean = x.mean(dim=-2)
    centered = (x - mean.unsqueeze(-2)) / (x.shape[-2] - 1) ** 0.5
    return mean, torch.linalg.qr(centered, mode="r").R
