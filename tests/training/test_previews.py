"""Preview grids and samples for callbacks: the source is drawn once, and the pictures are those of `generate`."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.helpers.diffusion_models import ddpm
from tests.training.test_diffusion_adaptation import CONFIG
from zeroshift.config.settings import AdaptConfig
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.io.numbering import numbered
from zeroshift.sampling.generate import decode, generate
from zeroshift.training.callbacks import StepEvent
from zeroshift.training.previews import Samples
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.trainer import adapt

NUM = 10  # more than one batch


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> AdaptConfig:
    generator = ddpm(tmp_path_factory.mktemp("models") / "ddpm")
    return dataclasses.replace(
        CONFIG, generator=str(generator), encoders=(str(tiny_encoder),), preview_samples=NUM, preview_every=1
    )


def expected(config: AdaptConfig, generators: list[str | Path], num: int) -> list[Tensor]:
    loaded = [load_generator(path) for path in generators]
    for generator in loaded:
        generator.configure(config.sampling)
    rows = generate(loaded, num, seed=config.seed, truncation_psi=config.truncation_psi)
    return [torch.cat(images) for images in zip(*rows, strict=True)]


def test_source_samples_are_kept_and_equal_those_of_generate(config: AdaptConfig) -> None:
    source, other = load_generator(config.generator), load_generator(config.generator)
    for generator in (source, other):
        generator.configure(config.sampling)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    samples = Samples(config, source)
    rows = generate([source, other], NUM, seed=config.seed, truncation_psi=config.truncation_psi)
    before, after = (torch.cat(images) for images in zip(*rows, strict=True))
    assert torch.equal(samples.adapted(other, NUM), after)
    assert torch.equal(samples.source(NUM), before)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.zero_()
    assert torch.equal(samples.source(NUM), before), "drawn once"
    assert torch.equal(samples.adapted(other, NUM), after), "codes too"
    assert not torch.equal(samples.source(2), before[:2]), "another number of samples is drawn again"


@pytest.mark.slow
def test_previews_of_a_diffusion_model_draw_the_source_once(
    config: AdaptConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(
        "zeroshift.training.previews.decode",
        lambda generator, codes, name: drawn.append(name) or decode(generator, codes, name),
    )
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def look(event: StepEvent) -> None:
        if event.stage == "adapt":
            kept[event.step] = event.images(2)
            event.images(2)[0].zero_()  # the kept images are not the caller's

    adapt(config, tmp_path / "run", callbacks=[look])
    # Two batches for the previews, one for the callback.
    assert drawn.count("The source generator") == 3
    run = RunFolder.read(tmp_path / "run")
    source, adapted = expected(config, [config.generator, run.generator_path], NUM)
    run.save_image("again", torch.cat([source, adapted]), columns=NUM)
    last = f"{numbered(config.adapt.steps)}.png"
    assert (run.path / "previews" / last).read_bytes() == (run.path / "previews" / "again.png").read_bytes()
    assert torch.equal(kept[config.adapt.steps][0], expected(config, [config.generator], 2)[0])
    assert not torch.equal(kept[1][1], kept[config.adapt.steps][1])
