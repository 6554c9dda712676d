"""Times the parts of a whole run of `zeroshift adapt`, whose options follow.

    OMP_NUM_THREADS=1 python benchmarks/run_parts.py --generator miniature-autoencoder --target zombie

Prints processor seconds and their shares, from the start of Python to the end of the run. The run goes to a temporary
folder, which is removed.
"""

import sys
import tempfile
import time
from collections.abc import Sequence

import torch
from clock import REST, WHOLE, Clock

from zeroshift.cli import adapt
from zeroshift.report import page
from zeroshift.training import loop, preparation, stepwise, trainer
from zeroshift.training.loop import Training

__all__ = ["main"]

# Functions and methods by part. All are called through these names.
PARTS = (
    (Training, "_one_step", "steps of all stages"),
    (preparation, "_image_bank", "image bank"),
    (page, "write_report", "report"),
    (Training, "_preview", "previews"),
    (loop, "save_stage_preview", "previews of the stages"),
    (Training, "_checkpoint", "checkpoints"),
    (stepwise, "_show_estimate", "estimate of time and memory"),
)


def main(arguments: Sequence[str]) -> dict[str, float]:
    """Runs `zeroshift adapt` with the options; prints and returns the processor seconds by part."""
    assert trainer  # imported before the clock starts, as part of the imports
    imports = time.process_time()
    clock = Clock(torch.device("cpu"), "processor")
    for owner, name, part in PARTS:
        clock.watch(owner, name, part)
    with tempfile.TemporaryDirectory() as folder:
        _, seconds = clock.time(lambda: adapt.main([*arguments, "--out", f"{folder}/run"]))
    whole = imports + seconds.pop(WHOLE)
    seconds = {"everything else": seconds.pop(REST), "imports": imports} | seconds
    seconds = dict(sorted(seconds.items(), key=lambda item: -item[1])) | {"whole run": whole}
    print("\n| part | seconds | share |\n| --- | ---: | ---: |")
    for part, each in seconds.items():
        print(f"| {part} | {each:.1f} | {100 * each / whole:.1f} % |")
    return seconds


if __name__ == "__main__":
    main(sys.argv[1:])
