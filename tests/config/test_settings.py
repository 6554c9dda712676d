import dataclasses
from typing import Any

import pytest

from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.errors import ZeroshiftError
from zeroshift.methods.configure import preset, resolve
from zeroshift.methods.ipl import IPLOptions, PromptStage
from zeroshift.methods.svl import SVLOptions

CONFIG = AdaptConfig(target="disney")


def test_published_preset_has_the_published_numbers() -> None:
    config = preset("published", "disney")
    prompts = config.options.prompts
    assert (prompts.steps, prompts.batch_size, prompts.lr, prompts.num_context) == (300, 32, 0.05, 4)
    assert config.adapt.lr == 0.002 * 4 / 5
    assert config.adapt.betas == (0, 0.99 ** (4 / 5))
    assert (config.adapt.steps, config.adapt.batch_size, config.adapt.ema_decay) == (300, 2, 0.99)
    assert config.truncation_psi == 0.7


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"target": " "}, "target label is empty"),
        ({"source": ""}, "source label is empty"),
        ({"target": "Photo "}, "no direction between"),
        ({"method": "magic"}, "There is no method 'magic'"),
        ({"method": 3}, "method is 3"),
        ({"generator": ""}, "generator is empty"),
        ({"encoders": ()}, "An encoder is missing"),
        ({"encoder_weights": (1.0, 2.0)}, "1 encoders, but 2 encoder weights"),
        ({"encoder_weights": (0.0,)}, "must be positive"),
        ({"options": SVLOptions()}, "'ipl' takes IPLOptions"),
        ({"target_texts": ("undead=0",)}, "must be TEXT or TEXT=WEIGHT with a positive weight"),
        ({"target_texts": ("=2",)}, "must be TEXT or TEXT=WEIGHT"),
        ({"target_texts": ("undead", " Photo")}, "' Photo' is the source label"),
        ({"image_weight": 1.5}, "image_weight is 1.5; it must be between 0 and 1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": True}, "must be a whole number"),
        ({"truncation_psi": 0.0}, "truncation_psi is 0.0"),
        ({"compile_mode": "reduce-overhead"}, "but the networks are not compiled. Add --compile"),
        ({"precision": "fp16"}, "one of 'float32', 'tf32', 'bf16'"),
        ({"preview_samples": 0}, "preview_samples is 0"),
        ({"options": IPLOptions(PromptStage(steps=0))}, "prompts.steps is 0"),
        ({"options": IPLOptions(PromptStage(batch_size=1))}, "prompts.batch_size is 1"),
        ({"options": IPLOptions(PromptStage(lr=0.0))}, "prompts.lr is 0.0"),
        ({"options": IPLOptions(PromptStage(lr=float("nan")))}, "prompts.lr is nan; it must be a finite number"),
        ({"options": IPLOptions(PromptStage(context_init=" "))}, "context_init is empty"),
        ({"options": IPLOptions(PromptStage(domain_weight=-1.0))}, "domain_weight is -1.0"),
        ({"adapt": AdaptStage(batch_size=3, grad_accumulation_steps=2)}, "not divisible by"),
        ({"adapt": AdaptStage(ema_decay=1.0)}, "adapt.ema_decay is 1.0"),
        ({"adapt": AdaptStage(betas=(0.0, 1.0))}, "adapt.betas is 1.0"),
        ({"adapt": AdaptStage(layers=("all", "b4"))}, "'adaptive' alone"),
        ({"adapt": AdaptStage(layers=())}, "'adaptive' alone"),
        ({"adapt": AdaptStage(num_layers=0)}, "adapt.num_layers is 0"),
        ({"adapt": PromptStage()}, "adapt must be an AdaptStage"),
    ],
)
def test_invalid_settings_are_refused_in_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ZeroshiftError, match=sentence):
        resolve(dataclasses.replace(CONFIG, **changes))
