"""A recorded run of the published IPL program with a real choice of layers and Adam as in PyTorch 1.8 (float64).

Its choices change between steps, so it tells apart what Adam does with layers that are not chosen.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conformance.fill import fill, load
from tests.training.test_conformance import published_clip, statistics, tensors
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.core.distributed import Distributed
from zeroshift.generators.checkpoints.stylegan2_layouts import stylegan2_from_rosinality, stylegan2_to_rosinality
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.ipl import IPL, IPLOptions, PromptStage
from zeroshift.training.adaptation import Adaptation, AdaptUpdate

CASE = Path(__file__).parents[1] / "conformance" / "ipl_16_adam_ageing_f64.npz"

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("conformance-adam")]


FIRST_CHANGE = 7  # the first step with other layers than before


class Repeated:
    """Our run from the recorded start with the recorded random numbers."""

    def __init__(self, unchosen_gradient: str, steps: int):
        self.meta, self.arrays = load(CASE)
        args, described = self.meta["args"], self.meta["source_generator"]
        seed = described.get("fill_seed", args["seed"])
        average = torch.zeros(described["style_dim"])
        weights = tensors(fill(described["shapes"], seed))
        self.source = stylegan2_from_rosinality(weights, average).double().requires_grad_(False)
        stage = PromptStage(
            steps=args["n1"], batch_size=args["b1"], lr=args["lr_mapper"], num_context=args["n_ctx"],
            context_init=args["ctx_init"], domain_weight=args["lambda_l"], source_weight=args["lambda_src"],
        )  # fmt: skip
        adapt = AdaptStage(
            steps=args["n2"], batch_size=args["b2"], lr=args["lr"] * 4 / 5, ema_decay=args["ema"],
            num_layers=args["k"], layer_batch_size=args["layer_batch"], layer_steps=args["layer_iters"],
            unchosen_gradient=unchosen_gradient,  # type: ignore[arg-type]
        )  # fmt: skip
        config = AdaptConfig(args["target"], args["source"], options=IPLOptions(stage), adapt=adapt)
        self.context = TrainingContext(
            config, self.source, [published_clip(self.meta["clip"]).double()], Distributed("cpu")
        )
        self.ipl = IPL(self.context)
        self._load_mapper()
        self.draws = iter(torch.from_numpy(self.arrays[f"draw/{index}"]) for index in range(len(self.meta["draws"])))
        self.adaptation = Adaptation(self.context, self.ipl)
        self._play(self.source, self.adaptation.target)
        batch = self.context.fresh_latents.batch(next(self.draws), "prompts", 0, range(args["b1"]))
        self.prompts = self.ipl.stages()[0].update(batch, 0)
        next(self.draws)  # the latents of the program's sample sheet
        self.updates = [self._step(step) for step in range(steps)]

    def _load_mapper(self) -> None:
        mapper, described = self.ipl.mappers[0], self.meta["mapper"]
        weights = fill(described["shapes"], described["fill_seed"])
        state = {
            f"layers.{index}.{kind}": weights[f"mapping.mapping.{index + 1}.{kind}"]
            for index in range(len(mapper.layers))
            for kind in ("weight", "bias")
        }
        mapper.load_state_dict(tensors(state))

    def _play(self, *generators: StyleGAN2) -> None:
        def noises(mode: str, seed: int, samples: Any) -> list[torch.Tensor]:
            return [next(self.draws) for _ in self.source.synthesis.convs()]

        for generator in generators:
            generator._noises = noises  # type: ignore[method-assign, assignment]

    def _step(self, step: int) -> AdaptUpdate:
        batch = self.context.fresh_latents.batch(next(self.draws), "source", step, range(2))
        layer_batch = self.context.fresh_latents.batch(next(self.draws), "layers", step, range(2))
        return self.adaptation.update(batch, layer_batch, step)

    def apart(self, step: int) -> float:
        """Largest difference of the target images from the recorded ones, relative to their largest value."""
        recorded = self.arrays[f"target_image/{step}"]
        return float(
            (self.updates[step].target_images - torch.from_numpy(recorded)).abs().max() / np.abs(recorded).max()
        )


@pytest.fixture(scope="module")
def repeated() -> Iterator[dict[str, Repeated]]:
    """The run with both gradients of unchosen layers, in double precision as recorded."""
    torch.set_default_dtype(torch.float64)
    yield {"zero": Repeated("zero", 16), "none": Repeated("none", FIRST_CHANGE + 2)}
    torch.set_default_dtype(torch.float32)


def test_the_recorded_run_is_repeated(repeated: dict[str, Repeated]) -> None:
    ours = repeated["zero"]
    arrays, candidates = ours.arrays, ours.source.layer_candidates()
    published = dict(
        zip(candidates, ["conv1", "to_rgb1", *(f"convs.{i}" for i in range(len(candidates) - 2))], strict=True)
    )
    assert ours.prompts.losses["loss"] == pytest.approx(arrays["loss/prompt_stage"][0], rel=1e-6)
    for step, update in enumerate(ours.updates):
        assert [published[name] for name in update.layers] == arrays["chosen"][step].tolist()
        assert update.losses["loss"] == pytest.approx(arrays["loss/adapt_stage"][step], rel=1e-6)
        assert ours.apart(step) < 1e-6
        direction = torch.from_numpy(arrays[f"direction/{step}/0"])
        torch.testing.assert_close(update.text_directions[0], direction, atol=1e-6, rtol=0)


def test_the_final_average(repeated: dict[str, Repeated]) -> None:
    ours = repeated["zero"]
    average, source = (stylegan2_to_rosinality(one) for one in (ours.adaptation.target_ema, ours.source))
    for name, (size, product) in ours.meta["ema_moved_stats"].items():
        _, our_size, our_product = statistics(average[name] - source[name])
        assert our_size == pytest.approx(size, rel=1e-4, abs=1e-12), name
        assert our_product == pytest.approx(product, rel=1e-3, abs=1e-4 * size * average[name].numel() ** 0.5 + 1e-9), (
            name
        )


def test_skipped_layers_lead_elsewhere(repeated: dict[str, Repeated]) -> None:
    """The runs are equal until a layer is chosen that was not chosen before."""
    none = repeated["none"]
    chosen = none.arrays["chosen"].tolist()
    assert all(set(layers) == set(chosen[0]) for layers in chosen[:FIRST_CHANGE])
    assert "convs.0" in chosen[FIRST_CHANGE]
    assert max(none.apart(step) for step in range(FIRST_CHANGE + 1)) < 1e-6
    assert none.apart(FIRST_CHANGE + 1) > 0.1
