"""`zeroshift.draw`: each setting does what it says, and a picture's command draws it again."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zeroshift
from tests.helpers.tiny_models import save_tiny_generator
from zeroshift.api.drawing import Drawing, Renderer, drawing_command, load_renderer
from zeroshift.cli.main import main
from zeroshift.sampling.film import latents_between


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    """A tiny source and two targets that differ from it in all weights."""
    source = zeroshift.load_generator(save_tiny_generator(tmp_path_factory.mktemp("drawing") / "source.safetensors"))
    targets = []
    for seed in (1, 2):
        target = zeroshift.blend_weights(source, [], [])
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in target.parameters():
                weight += 0.05 * torch.randn_like(weight)
        targets.append(target)
    return Renderer(source, targets, truncation_psi=0.7)


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-5)


def test_a_plain_drawing_shows_what_generate_shows(renderer: Renderer) -> None:
    drawn = renderer(Drawing(seed=3, samples=(0, 1)))
    generated = next(
        zeroshift.generate([renderer.source, *renderer.targets], 2, seed=3, truncation_psi=0.7, output="tensor")
    )
    assert len(drawn) == 3
    assert all(equal(*pair) for pair in zip(drawn, generated, strict=True))


def test_strength_goes_from_source_to_target(renderer: Renderer) -> None:
    source, target, _ = renderer(Drawing(strength=1.0))
    assert equal(renderer(Drawing(strength=0.0))[1], source)
    half = renderer(Drawing(strength=0.5))[1]
    assert not equal(half, source)
    assert not equal(half, target)


def test_a_mix_is_one_column_of_blended_weights(renderer: Renderer) -> None:
    drawing = Drawing(mix=(0.25, 0.75), strength=0.8)
    _, mixed = renderer(drawing)
    blended = zeroshift.blend_weights(renderer.source, renderer.targets, [0.2, 0.6])
    alone = Renderer(renderer.source, [blended], truncation_psi=0.7)
    assert equal(mixed, alone(Drawing())[1])


def test_the_same_column_takes_new_shares_and_old_ones_again(renderer: Renderer) -> None:
    first = renderer(Drawing(strength=0.3))[1]
    renderer(Drawing(strength=0.9))
    assert torch.equal(renderer(Drawing(strength=0.3))[1], first)


def test_style_mixing_takes_the_later_layers_from_the_other_seed(renderer: Renderer) -> None:
    last = renderer.num_styles
    plain, other = renderer(Drawing(seed=1))[0], renderer(Drawing(seed=2))[0]
    assert equal(renderer(Drawing(seed=1, style_seed=2, style_layer=0))[0], other)
    assert equal(renderer(Drawing(seed=1, style_seed=2, style_layer=last))[0], plain)


def test_a_walk_begins_and_ends_at_its_samples(renderer: Renderer) -> None:
    walk = Drawing(seed=1, walk_seed=2)
    assert equal(renderer(replace(walk, position=0.0))[0], renderer(Drawing(seed=1))[0])
    assert equal(renderer(replace(walk, position=1.0))[0], renderer(Drawing(seed=2))[0])


def test_latents_keep_their_length_on_the_way() -> None:
    start, end = torch.randn(2, 3, 16)
    middle = latents_between(start, end, 0.5)
    assert torch.allclose(middle.norm(dim=1), (start.norm(dim=1) + end.norm(dim=1)) / 2)


def test_a_sample_does_not_depend_on_the_others(renderer: Renderer) -> None:
    together = renderer(Drawing(samples=(0, 1, 2)))[1]
    assert torch.equal(renderer(Drawing(samples=(2,)))[1][0], together[2])


@pytest.mark.parametrize(
    ("drawing", "sentence"),
    [
        (Drawing(seed=-1), "seed is -1"),
        (Drawing(samples=()), "one or more numbers of samples"),
        (Drawing(truncation_psi=0.0), "truncation_psi is 0.0"),
        (Drawing(position=1.5), "position is 1.5"),
        (Drawing(strength=float("nan")), "must be a number"),
        (Drawing(mix=(1.0,)), "1 shares of a mix for 2 runs"),
        (Drawing(style_seed=1, style_layer=99), "crossover layer"),
    ],
)
def test_invalid_drawings_are_refused(renderer: Renderer, drawing: Drawing, sentence: str) -> None:
    with pytest.raises(zeroshift.ZeroshiftError, match=sentence):
        renderer(drawing)


def test_the_command_in_a_picture_draws_it_again(tiny_generator: Path, tmp_path: Path) -> None:
    drawing = Drawing(seed=4, samples=(2,), truncation_psi=0.6, walk_seed=9, position=0.25)
    command = drawing_command([tiny_generator], drawing, 0, str(tmp_path / "again.png"))
    assert main(shlex.split(command)[1:]) == 0
    drawn = load_renderer(str(tiny_generator))(drawing)[0]
    expected = zeroshift.save_image(tmp_path / "expected.png", drawn)
    with Image.open(tmp_path / "again.png") as again, Image.open(expected) as first:
        assert np.array_equal(np.asarray(again), np.asarray(first))
        assert again.info["zeroshift"] == command


def test_wrong_arguments_of_the_command_are_sentences(
    tiny_generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, sentence in (
        ([], "Name one or more run folders"),
        ([str(tiny_generator), "--out", str(tmp_path / "x.jpg")], "must be a .png file"),
        ([str(tiny_generator), "--samples", "0.5"], "whole numbers"),
        ([str(tiny_generator), "--column", "3", "--out", str(tmp_path / "x.png")], "There is no column 3"),
        (["nothing", "other"], "not a run folder"),
    ):
        assert main(["draw", *words]) == 1
        assert sentence in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
