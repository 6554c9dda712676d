"""benchmarks/choices.py on a few steps."""

import pytest
from choices import Arguments, main


@pytest.mark.slow
def test_ways_to_choose_are_compared() -> None:
    means = main(Arguments(steps=2, every=1, prompt_steps=1, ages=(1, 2)))
    assert list(means) == [
        "another 4 latents", "the same latents in bf16", "the training batch", "2 latents", "8 latents", "1 steps ago"
    ]  # fmt: skip
    assert all(0.2 <= mean <= 1 for mean in means.values()), "6 of 10 layers share at least 2 with any other 6"
    assert means["the same latents in bf16"] >= 5 / 6
