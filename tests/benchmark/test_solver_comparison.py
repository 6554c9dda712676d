"""The script that compares the solvers of diffusion models."""

import pytest
from solvers import Arguments, main


@pytest.mark.slow
def test_both_solvers_are_compared_with_many_steps() -> None:
    """In the tables of the embedded model, more steps and the higher order come closer to the image of many steps."""
    few = Arguments(("miniature-autoencoder",), noise_steps=(2,), steps=(1, 3), invert_steps=(3,), many=9, samples=1)
    (found,) = main(few).values()
    assert len(found) == 8
    assert all(0 < cosine < 1.0001 for _, cosine in found.values())
    psnr = {key: value for key, (value, _) in found.items()}
    assert psnr["images, 1 dpm-solver++"] < psnr["images, 3 dpm-solver++"]
    assert psnr["images, 3 ddim"] < psnr["images, 3 dpm-solver++"]
    assert psnr["photos, 3 + 3 ddim"] < psnr["photos, 3 + 3 dpm-solver++"]
