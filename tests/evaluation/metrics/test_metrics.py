"""The formulas against independent implementations, on random features."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import sqrtm
from scipy.stats import entropy
from sklearn.metrics.pairwise import polynomial_kernel
from torchmetrics.image import FrechetInceptionDistance, InceptionScore, KernelInceptionDistance

from zeroshift.clip.losses import directional, normalize
from zeroshift.evaluation.metrics.diversity import diversity, intra_cluster_distance, pairwise_distance
from zeroshift.evaluation.metrics.features import Features
from zeroshift.evaluation.metrics.frechet import frechet_distance, gaussian, sifid
from zeroshift.evaluation.metrics.inception_score import inception_score
from zeroshift.evaluation.metrics.kernel import kernel_distance
from zeroshift.evaluation.metrics.pairs import (
    clip_distance,
    direction_agreement,
    pair_similarity,
    paired_distance,
    structural_consistency,
)
from zeroshift.evaluation.metrics.protocols import (
    diversity_all_pairs,
    intra_10_references_50_a_cluster,
    is_10_splits,
    kd_100_subsets_of_at_most_1000,
)
from zeroshift.networks.base import FeatureNetwork, cosine_embedding


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Passed(torch.nn.Module):
    """A "feature network" for torchmetrics whose images are the features themselves, [N, 1, 1, D]."""

    num_features = 16

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


# Distances between distributions


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 16), (40, 30, 16), (10, 200, 16), (8, 8, 64)])
def test_frechet_distance_is_scipys(n: int, m: int, d: int) -> None:
    x, y = random(n, d) @ random(d, d, seed=5), 1.5 * random(m, d, seed=1) + 0.3
    a, b = np.cov(x.double().numpy(), rowvar=False), np.cov(y.double().numpy(), rowvar=False)
    difference = x.double().mean(dim=0) - y.double().mean(dim=0)
    # fewer rows than dimensions: a small diagonal prevents failures of scipy's square root
    eye = np.eye(d) * (1e-10 if min(n, m) <= d else 0)
    expected = float(difference.square().sum()) + np.trace(a + b - 2 * sqrtm((a + eye) @ (b + eye)).real)
    assert float(frechet_distance(gaussian(x), gaussian(y))) == pytest.approx(expected, rel=1e-3 if eye.any() else 1e-9)
    assert float(frechet_distance(gaussian(x), gaussian(x))) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_torchmetrics() -> None:
    x, y = random(300, 16), random(200, 16, seed=1) * 2 + 1
    metric = FrechetInceptionDistance(feature=Passed(), normalize=True, input_img_size=(1, 1, 16))
    metric.set_dtype(torch.float64)
    metric.inception.num_features = 16
    for features, real in ((x, True), (y, False)):
        metric.update(features[:, None, None].double(), real=real)
    assert float(frechet_distance(gaussian(x), gaussian(y))) == pytest.approx(float(metric.compute()), rel=1e-4)


def test_sifid_is_the_mean_of_naive_distances() -> None:
    maps, references = random(5, 30, 6), random(3, 20, 6, seed=1) * 1.4
    naive = [
        [float(frechet_distance(gaussian(one), gaussian(other))) for other in references.unbind()]
        for one in maps.unbind()
    ]
    assert sifid(gaussian(maps), gaussian(references)) == pytest.approx(np.mean(naive), rel=1e-9)
    assert sifid(gaussian(maps[:1]), gaussian(maps[:1])) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_is_scikit_learns() -> None:
    x, y = random(30, 16), random(40, 16, seed=1) + 0.5
    a, b = x.double().numpy(), y.double().numpy()
    # one subset with all rows: their order does not matter
    xx, xy = polynomial_kernel(a, degree=3, coef0=1), polynomial_kernel(a, b[:30], degree=3, coef0=1)
    yy = polynomial_kernel(b[:30], degree=3, coef0=1)
    n = 30
    expected = ((xx.sum() - np.trace(xx)) + (yy.sum() - np.trace(yy))) / (n * (n - 1)) - 2 * xy.mean()
    value, spread = kernel_distance(x, y[:30], subsets=1)
    assert value == pytest.approx(expected, rel=1e-9)
    assert spread == 0


@pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features")
def test_kernel_distance_is_torchmetrics() -> None:
    x, y = random(50, 16), random(50, 16, seed=1) + 0.5
    metric = KernelInceptionDistance(feature=Passed(), subsets=1, subset_size=50, normalize=True)
    for features, real in ((x, True), (y, False)):
        metric.update(features[:, None, None], real=real)
    assert kernel_distance(x, y, subsets=1)[0] == pytest.approx(float(metric.compute()[0]), rel=1e-4)


def test_kernel_distance_is_seeded_and_unbiased() -> None:
    same = [kernel_distance(random(1200, 4), random(1200, 4, seed=1), seed=seed, subsets=5) for seed in (0, 0, 1)]
    assert same[0] == same[1] != same[2]
    assert abs(same[0][0]) < 0.02, "unbiased: the mean is zero for equal distributions"
    assert same[0][1] > 0


@pytest.mark.parametrize("splits", [1, 10])
def test_inception_score_is_scipys(splits: int) -> None:
    logits = random(100, 12) * 2
    p = logits.double().softmax(dim=1).numpy()
    parts = np.split(p, splits)
    scores = [np.exp(np.mean([entropy(row, part.mean(axis=0)) for row in part])) for part in parts]
    assert inception_score(logits, splits) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-9)


@pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features", "ignore:std")
def test_inception_score_is_torchmetrics() -> None:
    logits = random(100, 16)
    metric = InceptionScore(feature=Passed(), splits=1)
    metric.update(logits[:, None, None])
    assert inception_score(logits, splits=1)[0] == pytest.approx(float(metric.compute()[0]), rel=1e-4)
    assert inception_score(torch.zeros(20, 8))[0] == pytest.approx(1), "uniform predictions"
    assert inception_score(100 * torch.eye(8).repeat(10, 1))[0] == pytest.approx(8), "every class with certainty"


# Diversity


def test_diversity_is_the_mean_over_pairs() -> None:
    features = random(7, 5)
    pairs = [1 - F.cosine_similarity(features[i], features[j], dim=0) for i in range(7) for j in range(7) if i != j]
    assert diversity(features) == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-6)
    assert diversity(features[:1].repeat(4, 1)) == pytest.approx(0, abs=1e-6)


def test_pairwise_distance_is_that_of_all_pairs_at_once() -> None:
    x = random(11, 6)
    naive = torch.pdist(x.double()).square().mean()
    assert pairwise_distance([x]) == pytest.approx(float(naive), rel=1e-9)
    assert pairwise_distance(iter(x.split(4))) == pytest.approx(float(naive), rel=1e-9)
    assert np.isnan(pairwise_distance([x[:1]]))


@pytest.mark.parametrize("size", [50, 4])
def test_intra_cluster_distance_is_the_naive_one(size: int) -> None:
    references = torch.tensor([[4.0, 0.0], [-4.0, 0.0], [0.0, 40.0]])
    x = random(30, 2) + torch.where(torch.arange(30) % 3 > 0, 4.0, -4.0)[:, None] * torch.tensor([1.0, 0.0])
    clusters = [x[x[:, 0] > 0][:size], x[x[:, 0] <= 0][:size]]  # none is near the third
    naive = np.mean([float(torch.pdist(cluster.double()).square().mean()) for cluster in clusters])
    assert intra_cluster_distance([x], references, size) == pytest.approx(naive, rel=1e-9)
    assert intra_cluster_distance(x.split(7), references, size) == pytest.approx(naive, rel=1e-9)
    assert np.isnan(intra_cluster_distance([x[:1]], references))


def test_squared_distance_of_cosine_embeddings_is_the_cosine_distance() -> None:
    x = random(4, 9)
    expected = 1 - F.cosine_similarity(x[:, None], x[None], dim=-1)
    assert torch.allclose(torch.cdist(cosine_embedding(x), cosine_embedding(x)).square(), expected, atol=1e-5)


# Pairs


def test_structural_consistency_is_the_dice_coefficient_of_edge_maps() -> None:
    a = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    b = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(1))
    naive = [2 * (x * y).sum() / (x.norm() ** 2 + y.norm() ** 2) for x, y in zip(a, b, strict=True)]
    assert torch.allclose(structural_consistency(a, b), torch.stack(naive))
    assert torch.allclose(structural_consistency(a, a), torch.ones(3))
    assert torch.equal(structural_consistency(a, torch.zeros_like(a)), torch.zeros(3))
    assert structural_consistency(a[:, :2] * 0, a[:, :2] * 0).isfinite().all()


def test_similarity_of_pairs_is_the_cosine() -> None:
    a, b = random(6, 8), random(6, 8, seed=1)
    assert torch.allclose(pair_similarity(a, b), (normalize(a) * normalize(b)).sum(dim=1), atol=1e-6)
    one = torch.eye(3)
    assert paired_distance(one, one * 5) == pytest.approx(0, abs=1e-6)
    assert paired_distance(one, one.roll(1, 0)) == pytest.approx(1)


def test_agreement_with_text_is_one_minus_the_directional_loss() -> None:
    source, target, labels = random(6, 8), random(6, 8, seed=1), random(2, 8, seed=2)
    assert torch.allclose(clip_distance(target, labels[1]), 1 - F.cosine_similarity(target, labels[1:]), atol=1e-6)
    agreement = direction_agreement(source, target, *labels)
    text = normalize(normalize(labels[1]) - normalize(labels[0]))[None]
    assert float(agreement.mean()) == pytest.approx(1 - float(directional(source, target, text)), abs=1e-6)
    assert torch.allclose(agreement, F.cosine_similarity(normalize(target) - normalize(source), text), atol=1e-6)


# Protocols


def test_kid_is_over_100_subsets_of_at_most_1000(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []

    def counted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        sizes.append((len(a), len(b)))
        return torch.zeros(())

    monkeypatch.setattr("zeroshift.evaluation.metrics.kernel._squared_mmd", counted)
    for rows, others, expected in ((1200, 1100, 1000), (1200, 300, 300)):
        kd_100_subsets_of_at_most_1000(
            Features(FeatureNetwork(), ("photo", "zombie"), 0, random(rows, 2), reference=random(others, 2))
        )
        assert sizes == [(expected, expected)] * 100
        sizes.clear()


def test_intra_diversity_takes_50_samples_per_cluster() -> None:
    """49 equal images, one at a distance of 9, and more that must not count."""
    x = torch.zeros(70, 2)
    x[49, 0], x[50:, 0] = 3.0, 30.0
    features = Features(_Embedding(), ("photo", "zombie"), 0, x, reference=torch.tensor([[1.0, 0.0], [900.0, 0.0]]))
    assert intra_10_references_50_a_cluster(features) == pytest.approx(49 * 9 / (50 * 49 / 2))


def test_inception_score_is_over_10_splits() -> None:
    """Ten images per split, each of its own class, give a score of 10; one split of all images would give 20."""
    logits = 100 * torch.eye(100)
    features = Features(_Embedding(), ("photo", "zombie"), 0, logits)
    assert is_10_splits(features) == pytest.approx((10, 0))


class _Embedding(FeatureNetwork):
    """Returns features unchanged; runs out of memory for more than `room` of them."""

    def __init__(self, room: int = 1000):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.room = room
        self.sizes: list[int] = []

    def embed(self, features: torch.Tensor) -> torch.Tensor:
        if len(features) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        self.sizes.append(len(features))
        return features

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        return features


def test_batches_of_embeddings_are_halved_until_they_fit_into_memory() -> None:
    x = random(21, 3)
    for room, sizes in ((1000, [8, 8, 5]), (3, [2] * 10 + [1])):
        network = _Embedding(room)
        batches = list(Features(network, ("photo", "zombie"), 0, x).embedded(x))
        assert torch.equal(torch.cat(batches), x)
        assert network.sizes == sizes
    value = diversity_all_pairs(Features(_Embedding(3), ("photo", "zombie"), 0, x))
    assert value == pytest.approx(pairwise_distance([x]))
    with pytest.raises(torch.OutOfMemoryError):
        list(Features(_Embedding(0), ("photo", "zombie"), 0, x).embedded(x))
