import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from zeroshift.cli.arguments import warn_no_truncation


def run(family: str) -> Any:
    return SimpleNamespace(config=SimpleNamespace(family=family))


@pytest.mark.parametrize("family", ["module", "diffusion"])
def test_a_truncation_that_no_generator_uses_is_a_warning(family: str) -> None:
    with pytest.warns(UserWarning, match=f"A {family} generator has no truncation. --truncation-psi is ignored"):
        warn_no_truncation(run(family), 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_no_truncation(run(family), None)
        warn_no_truncation(run("stylegan2"), 0.5)
