from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from zeroshift.clip.loading import load_encoder
from zeroshift.clip.losses import global_similarity
from zeroshift.core.distributed import Distributed
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.training.layer_selection import choose_layers, chosen_count, named_layers, train_only


@pytest.fixture(scope="module")
def generator(tiny_generator: Path) -> StyleGAN2:
    loaded = load_generator(str(tiny_generator))
    assert isinstance(loaded, StyleGAN2)
    return loaded


@pytest.mark.parametrize("steps", [1, 3])
def test_choice_equals_the_published_way(generator: StyleGAN2, tiny_encoder: Path, steps: int) -> None:
    """The twin uses torch's SGD on the codes, gradients of all weights, and a ranking of the layers in numpy."""
    encoder = load_encoder(str(tiny_encoder))
    label = encoder.encode_text(["zombie"])[0]
    codes = generator.codes(generator.sample_latents(0, range(6))).detach()
    candidates = generator.layer_candidates()

    def loss(moved: Tensor) -> Tensor:
        return global_similarity(encoder.encode_image(generator.synthesize(moved)), label, encoder.logit_scale)

    generator.requires_grad_(True)
    moved = codes.clone().requires_grad_()
    optimizer = torch.optim.SGD([moved], lr=10.0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(moved).backward()
        optimizer.step()
    before, after = codes.numpy(), moved.detach().numpy()
    change = [np.abs(after[:, row] - before[:, row]).mean() for row in range(len(candidates))]
    twin = [candidates[row] for row in np.argsort(change)[::-1]]
    assert len({f"{value:.3g}" for value in change}) == len(change), "no ties"

    generator.zero_grad()
    generator.requires_grad_(False)
    distributed = Distributed("cpu")
    assert choose_layers(loss, codes, candidates, len(candidates), 10.0, steps, distributed) == twin
    assert choose_layers(loss, codes, candidates, 2, 10.0, steps, distributed) == twin[:2]
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_published_counts() -> None:
    for size, count in ((1024, 12), (512, 10), (256, 9)):
        candidates = int(2 * np.log2(size) - 2)
        assert chosen_count(candidates, None) == int(2 * candidates / 3) == count
    assert chosen_count(6, 2) == 2
    with pytest.raises(ZeroshiftError, match="num_layers is 7, but the generator has 6"):
        chosen_count(6, 7)


def test_names(generator: StyleGAN2) -> None:
    assert named_layers(generator, ("adaptive",)) is None
    assert named_layers(generator, ("all",)) == list(generator.layers())
    assert named_layers(generator, ("synthesis.b8.conv0",)) == ["synthesis.b8.conv0"]
    with pytest.raises(ZeroshiftError, match=r"no layer 'synthesis.b8.conv9'. Did you mean synthesis.b8.conv"):
        named_layers(generator, ("synthesis.b8.conv9",))


def test_without_candidates_the_adaptive_choice_is_all_layers(
    generator: StyleGAN2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(generator), "layer_candidates", lambda self: None)
    assert named_layers(generator, ("adaptive",)) == list(generator.layers())


def test_only_the_named_layers_train(generator: StyleGAN2) -> None:
    train_only(generator, ["synthesis.b8.conv0", "synthesis.input"])
    training = {name for name, parameter in generator.named_parameters() if parameter.requires_grad}
    generator.requires_grad_(False)
    assert training == {"synthesis.input.const"} | {
        f"synthesis.b8.conv0.{name}" for name in ("weight", "bias", "noise_strength", "affine.weight", "affine.bias")
    }
