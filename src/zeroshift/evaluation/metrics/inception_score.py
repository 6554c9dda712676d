"""The Inception Score."""

import torch
from torch import Tensor

__all__ = ["inception_score"]


def inception_score(logits: Tensor, splits: int = 10) -> tuple[float, float]:
    """exp(mean KL(p(y|x) || p(y))) of logits [N, classes]: mean and standard deviation over consecutive splits.

    Salimans et al., "Improved techniques for training GANs", 2016, section 4.
    """
    scores = []
    for part in logits.double().tensor_split(splits):
        log_p = part.log_softmax(dim=1)
        log_mean = log_p.exp().mean(dim=0).log()
        scores.append((log_p.exp() * (log_p - log_mean)).sum(dim=1).mean().exp())
    values = torch.stack(scores)
    return float(values.mean()), float(values.std(correction=0))
