"""How often cheaper choices of layers choose the same layers as the published one, along a run in the miniature world.

    python benchmarks/choices.py --target zombie --steps 82

At every `every`-th step of an IPL run, the layers are chosen in several ways. Printed is the mean fraction of layers
that each of them shares with the run's own kind of choice (4 latents in the miniature preset).
"""

import dataclasses
import statistics
from collections import defaultdict

import tyro

from zeroshift.core.distributed import Distributed
from zeroshift.methods.configure import changed, preset, resolve
from zeroshift.methods.registry import METHODS
from zeroshift.training.adaptation import Adaptation
from zeroshift.training.layer_selection import LayerChoice
from zeroshift.training.preparation import make_context


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    target: str = "zombie"
    """Target domain."""
    steps: int = 82
    """Adapt steps."""
    every: int = 8
    """Steps between two measurements."""
    prompt_steps: int = 100
    """Steps of the prompt stage."""
    seed: int = 10
    ages: tuple[int, ...] = (2, 4, 8)
    """Ages, in steps, of older choices to compare with."""


def main(arguments: Arguments) -> dict[str, float]:
    """Prints and returns the mean shared fraction of each way to choose."""
    config = resolve(
        preset("miniature", arguments.target, method="ipl", seed=arguments.seed).replace(
            prompts={"steps": arguments.prompt_steps}
        )
    )
    context = make_context(config, Distributed("cpu"), None, None, None)
    method = METHODS[config.method](context)
    for stage in method.stages():
        for step in range(stage.steps):
            stage.step(step)
    adaptation = Adaptation(context, method)
    draw, size = context.fresh_latents.draw, config.adapt.layer_batch_size

    def choice(**settings: object) -> LayerChoice:
        other = changed(config, {f"adapt.{name}": value for name, value in settings.items()})
        return LayerChoice(dataclasses.replace(context, config=other), method, adaptation.target)

    own, bf16 = choice(), choice(layer_precision="bf16")
    shared: dict[str, list[float]] = defaultdict(list)
    history: list[list[str]] = []
    for step in range(arguments.steps):
        if step and step % arguments.every == 0:
            batch = draw("layers", step, range(size))
            wanted = own.from_new_codes(batch, step)
            ways = {
                f"another {size} latents": own.from_new_codes(draw("other", step, range(size)), step),
                "the same latents in bf16": bf16.from_new_codes(batch, step),
                "the training batch": by_training_batch(adaptation, own, step),
            }
            for count, purpose in ((2, "two"), (8, "eight")):
                chooser = choice(layer_batch_size=count)
                ways[f"{count} latents"] = chooser.from_new_codes(draw(purpose, step, range(count)), step)
            ways |= {f"{age} steps ago": history[step - age] for age in arguments.ages if age <= step}
            for name, layers in ways.items():
                shared[name].append(len(set(wanted) & set(layers)) / len(wanted))
        history.append(adaptation.step(step)["layers"])
    means = {name: statistics.mean(values) for name, values in shared.items()}
    for name, mean in means.items():
        print(f"{name}: {mean:.3f}")
    return means


def by_training_batch(adaptation: Adaptation, choice: LayerChoice, step: int) -> list[str]:
    """The choice by the batch on which the step will train."""
    context = adaptation._context
    batch = context.fresh_latents.draw("adapt", step, range(context.config.adapt.batch_size), noise="source")
    adaptation._train_only(choice.candidates)
    part = adaptation._source_part(batch, step, code_gradients=True)
    return choice.from_batch(part.codes, adaptation._pairs(part, step).target_features)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
