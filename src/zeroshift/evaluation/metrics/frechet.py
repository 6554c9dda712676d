"""The Fréchet distance between Gaussians: FID, FD in any features, SIFID."""

import torch
from torch import Tensor

from zeroshift.core.dtypes import float64

__all__ = ["Gaussian", "frechet_distance", "gaussian", "sifid"]

Gaussian = tuple[Tensor, Tensor]  # mean [..., D] and root [..., K, D] with root^T root = covariance


def gaussian(features: Tensor) -> Gaussian:
    """Mean and covariance (unbiased) of features [..., n, D], n at least 2, in float64.

    The covariance comes as a root of it, from a QR decomposition: [..., min(n, D), D], no more than is needed.
    """
    x = float64(features)
    mean = x.mean(dim=-2)
    centred = (x - mean.unsqueeze(-2)) / (x.shape[-2] - 1) ** 0.5
    return mean, torch.linalg.qr(centred, mode="r").R


def frechet_distance(one: Gaussian, other: Gaussian) -> Tensor:
    """[...]: |m - n|² + tr(A + B - 2 (A B)^½); leading dimensions broadcast.

    Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", 2017, equation
    6. With A = R^T R and B = S^T S the trace of (A B)^½ is the sum of the singular values of R S^T: the eigenvalues of
    A B are those of (R S^T)(R S^T)^T. So no square root of an ill-conditioned matrix is taken.
    """
    (m, r), (n, s) = one, other
    traces = r.square().sum(dim=(-2, -1)) + s.square().sum(dim=(-2, -1))
    return (m - n).square().sum(dim=-1) + traces - 2 * torch.linalg.svdvals(r @ s.mT).sum(dim=-1)


def sifid(images: Gaussian, references: Gaussian) -> float:
    """Single-image FID: the mean over images and references of the distance between their maps' Gaussians.

    Shaham et al., "SinGAN", 2019, section 4.2: the Gaussians are over the places of one image's feature map. The values
    depend on the network that it is of, and on its size: only those of one network and size compare.

    Args:
        images: of N images, mean [N, D] and root [N, K, D].
        references: of M, the same.
    """
    (means, roots), (m, s) = images, references
    distances = [frechet_distance((means, roots), (m[i], s[i])).mean() for i in range(len(m))]
    return float(torch.stack(distances).mean())
