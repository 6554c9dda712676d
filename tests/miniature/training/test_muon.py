"""The Muon optimizer."""

import pytest
import torch

from zeroshift.miniature.training.muon import Muon, orthogonalize


def newton_schulz(matrix):
    """The naive twin: every step on the matrix itself."""
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.t()
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def test_orthogonalize_equals_the_naive_steps():
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(orthogonalize(matrix), newton_schulz(matrix), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(orthogonalize(matrix.t()), newton_schulz(matrix).t(), atol=1e-4, rtol=1e-4)


def test_orthogonalize_gives_nearly_the_nearest_orthogonal_matrix():
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0))
    for each in (matrix, matrix.t()):
        singular = torch.linalg.svdvals(orthogonalize(each))
        assert 0.6 < singular.min() < singular.max() < 1.3
        left, _, right = torch.linalg.svd(each, full_matrices=False)
        similar = torch.cosine_similarity(orthogonalize(each).flatten(), (left @ right).flatten(), dim=0)
        assert similar > 0.97


def test_a_muon_step_has_the_learning_rate_as_its_rms_and_training_converges():
    random = torch.Generator().manual_seed(0)
    kernel = torch.nn.Parameter(torch.randn(8, 6, 3, 3, generator=random))
    truth = torch.randn(8, 6, 3, 3, generator=random)
    optimizer = Muon([kernel], lr=0.05)
    start = kernel.detach().clone()
    first = (kernel - truth).square().mean()
    first.backward()
    optimizer.step()
    assert (kernel - start).square().mean().sqrt().item() == pytest.approx(0.05, rel=0.25)
    for _ in range(100):
        optimizer.zero_grad()
        loss = (kernel - truth).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.02 * first


def test_muon_resumes_bit_for_bit():
    def run(parts: int) -> torch.Tensor:
        kernel = torch.nn.Parameter(torch.ones(4, 5))
        state = None
        for _ in range(parts):
            optimizer = Muon([kernel], lr=0.1)
            if state:
                optimizer.load_state_dict(state)
            for _ in range(4 // parts):
                optimizer.zero_grad()
                (kernel - torch.arange(20.0).view(4, 5)).square().sum().backward()
                optimizer.step()
            state = optimizer.state_dict()
        return kernel.detach()

    assert torch.equal(run(1), run(2))
