"""Adaptations for tests of losses."""

import torch

from zeroshift.methods.base import Method
from zeroshift.training.adaptation import Adaptation


def perturbed(method: Method) -> Adaptation:
    """An adaptation by a method whose target differs from the source."""
    adaptation = Adaptation(method.context, method)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in adaptation.target.synthesis.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return adaptation
