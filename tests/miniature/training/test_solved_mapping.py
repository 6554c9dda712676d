"""The mapping network that is solved in closed form."""

import torch

from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.miniature.training import generator as recipe
from zeroshift.miniature.training import solved_mapping
from zeroshift.miniature.world.factors import FACTORS, NUM_FACTORS


def network(resolution: int = 64) -> StyleGAN2:
    channels = {4: 8, 8: 8, 16: 8, 32: 4, 64: 4}
    torch.manual_seed(0)
    return StyleGAN2(
        resolution, NUM_FACTORS, recipe.W_DIM, mapping_layers=2, mapping_features=recipe.MAPPING_FEATURES,
        channels={size: width for size, width in channels.items() if size <= resolution},
    )  # fmt: skip


def test_features_are_standardized():
    features = solved_mapping.factor_features(
        torch.randn(20000, NUM_FACTORS, generator=torch.Generator().manual_seed(0))
    )
    assert features.shape[1] == sum(len(f.classes) or 1 for f in FACTORS)
    assert features.mean(dim=0).abs().max() < 0.05
    assert (features.std(dim=0) - 1).abs().max() < 0.06


def test_solved_mapping_encodes_all_factors_in_w():
    mapping = network().mapping
    solved_mapping.solve_mapping(mapping, seed=1)
    z = torch.randn(4000, NUM_FACTORS, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        w = mapping(z)
    features = solved_mapping.factor_features(z)
    error = (w[:, : features.shape[1]] - features).square().mean(dim=0)
    assert error.max() < 0.03  # of a variance of one
    assert (w.mean(dim=0) - mapping.w_avg).abs().max() < 0.1
    assert w.std(dim=0).min() > 0.3  # no entry is idle


def test_solved_mapping_depends_on_its_seed_alone():
    first, again, other = network().mapping, network().mapping, network().mapping
    for mapping, seed in ((first, 1), (again, 1), (other, 2)):
        solved_mapping.solve_mapping(mapping, seed)
    assert torch.equal(first.w_avg, again.w_avg)
    assert not torch.equal(first.w_avg, other.w_avg)
