"""The Fréchet distance between Gaussians: FID, FD with any features, SIFID."""

import torch
from torch import Tensor

from zeroshift.evaluation.feature_rows import in_parts
from zeroshift.networks.gaussian import Gaussian, gaussian

__all__ = ["Gaussian", "frechet_distance", "gaussian", "sifid"]


def frechet_distance(one: Gaussian, other: Gaussian) -> Tensor:
    """|m - n|² + tr(A + B - 2 (A B)^½) of Gaussians (m, A) and (n, B), [...]; leading dimensions broadcast.

    Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", 2017, equation
    6. With A = R^T R and B = S^T S, the trace of (A B)^½ is the sum of the singular values of R S^T, because the
    eigenvalues of A B are those of (R S^T)(R S^T)^T. This avoids the square root of an ill-conditioned matrix.
    """
    (m, r), (n, s) = one, other
    traces = r.square().sum(dim=(-2, -1)) + s.square().sum(dim=(-2, -1))
    distance: Tensor = (m - n).square().sum(dim=-1) + traces - 2 * torch.linalg.svdvals(r @ s.mT).sum(dim=-1)
    return distance


def sifid(images: Gaussian, references: Gaussian) -> float:
    """Single-image FID: Fréchet distance between the Gaussians of two images' feature maps, mean over all pairs.

    Shaham et al., "SinGAN", 2019, section 4.2: each Gaussian describes the locations of one image's feature map. Values
    are only comparable if the network and its input size are the same.

    Args:
        images: of N images, mean [N, D] and root [N, K, D].
        references: of M images, likewise.
    """
    (means, roots), (m, s) = images, references
    distances = [
        frechet_distance((mean, root), (m[i], s[i])) for mean, root in in_parts(means, roots) for i in range(len(m))
    ]
    return float(torch.cat(distances).mean())
