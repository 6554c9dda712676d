import ast
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import zeroshift
from zeroshift.config.settings import PRESETS, AdaptConfig, AdaptStage, PromptStage, preset
from zeroshift.errors import ZeroshiftError

CONFIG = AdaptConfig(target="disney")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_json(name: str) -> None:
    config = preset(name, "zombie", seed=3, encoders=("a", "b"), encoder_weights=(1.0, 0.5)).validate()
    assert (config.target, config.seed, config.weights) == ("zombie", 3, (1.0, 0.5))
    assert AdaptConfig.from_json(config.to_json()) == config


def test_published_numbers() -> None:
    config = preset("published", "disney")
    assert (config.prompts.steps, config.prompts.batch_size, config.prompts.lr, config.prompts.num_context) == (
        300,
        32,
        0.05,
        4,
    )
    assert config.adapt.lr == 0.002 * 4 / 5
    assert config.adapt.betas == (0, 0.99 ** (4 / 5))
    assert (config.adapt.steps, config.adapt.batch_size, config.adapt.ema_decay, config.truncation_psi) == (
        300,
        2,
        0.99,
        0.7,
    )


def test_unknown_preset() -> None:
    with pytest.raises(ZeroshiftError, match="There is no preset 'fast'"):
        preset("fast", "zombie")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"target": " "}, "target label is empty"),
        ({"source": ""}, "source label is empty"),
        ({"target": "Photo "}, "no direction to go"),
        ({"method": "magic"}, "There is no method 'magic'"),
        ({"generator": ""}, "generator is empty"),
        ({"encoders": ()}, "An encoder is missing"),
        ({"encoder_weights": (1.0, 2.0)}, "1 encoders, but 2 encoder weights"),
        ({"encoder_weights": (0.0,)}, "must be positive"),
        ({"target_images": ("a.png",)}, "Only the method 'nada'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": True}, "must be a whole number"),
        ({"truncation_psi": 0.0}, "truncation_psi is 0.0"),
        ({"precision": "fp16"}, "one of 'float32', 'bf16'"),
        ({"preview_samples": 0}, "preview_samples is 0"),
        ({"prompts": PromptStage(steps=0)}, "prompts.steps is 0"),
        ({"prompts": PromptStage(batch_size=1)}, "prompts.batch_size is 1"),
        ({"prompts": PromptStage(lr=0.0)}, "prompts.lr is 0.0"),
        ({"prompts": PromptStage(lr=float("nan"))}, "must be a finite number"),
        ({"prompts": PromptStage(context_init=" ")}, "context_init is empty"),
        ({"prompts": PromptStage(domain_weight=-1.0)}, "domain_weight is -1.0"),
        ({"adapt": AdaptStage(batch_size=3, grad_accumulation_steps=2)}, "not divisible by"),
        ({"adapt": AdaptStage(ema_decay=1.0)}, "adapt.ema_decay is 1.0"),
        ({"adapt": AdaptStage(betas=(0.0, 1.0))}, "adapt.betas is 1.0"),
        ({"adapt": AdaptStage(layers=("all", "b4"))}, "'adaptive' alone"),
        ({"adapt": AdaptStage(layers=())}, "'adaptive' alone"),
        ({"adapt": AdaptStage(num_layers=0)}, "adapt.num_layers is 0"),
        ({"adapt": PromptStage()}, "adapt must be a AdaptStage"),
    ],
)
def test_what_makes_no_sense_is_told(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ZeroshiftError, match=sentence):
        dataclasses.replace(CONFIG, **changes).validate()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ('{"target": "a", "steps": 3}', "Unknown in the configuration: steps"),
        ('{"target": "a", "adapt": {"stepz": 3}}', "Unknown in the configuration: adapt.stepz"),
        ('{"source": "a"}', "Missing in the configuration: target"),
        ('{"target": "a", "adapt": {"steps": "many"}}', "adapt.steps is 'many'"),
        ('{"target": "a", "encoders": "miniature"}', "must be a list of a text"),
    ],
)
def test_json_that_makes_no_sense(text: str, sentence: str) -> None:
    with pytest.raises(ZeroshiftError, match=sentence):
        AdaptConfig.from_json(text)


def test_json_fields_may_be_left_out() -> None:
    assert AdaptConfig.from_json(json.dumps({"target": "disney", "adapt": {"layers": ["all"]}})) == AdaptConfig(
        target="disney", adapt=AdaptStage(layers=("all",))
    )


def test_every_setting_is_read_by_someone() -> None:
    """Each field is an attribute read from something called config, settings, prompts or adapt, outside config.py."""
    package = Path(zeroshift.__file__).parent
    read = set()
    for path in package.rglob("*.py"):
        if path.name == "config.py" and path.parent == package:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = node.value
                name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
                if name in ("config", "settings", "prompts", "adapt"):
                    read.add(node.attr)
    if "weights" in read:  # the property through which encoder_weights is read
        read.add("encoder_weights")
    for kind in (AdaptConfig, AdaptStage, PromptStage):
        assert {spec.name for spec in dataclasses.fields(kind)} <= read
