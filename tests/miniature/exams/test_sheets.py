"""Sheets that compare generators with the renderer."""

from zeroshift.miniature.exams.sheets import generator_sheet
from zeroshift.miniature.world.renderer import render


def test_generator_sheet_shows_the_same_people():
    class Truth:
        def __call__(self, latents, truncation_psi=1.0):
            return render(latents)

    assert generator_sheet(Truth(), num=2, seed=0).shape[0] > 3 * 64
