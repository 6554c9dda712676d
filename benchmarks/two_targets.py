"""What two targets of one source would gain from sharing its images and features: processor time of one thread.

Both targets are adapted in one process, first each on its own, then with the images and features of each training batch
remembered. These depend on the seed and the step, not on the target, so the adapted weights must be equal bit for bit.

    python benchmarks/two_targets.py --steps 20 --rounds 2
"""

import argparse
import time
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from zeroshift import adapt, preset
from zeroshift.cli.allocator import keep_freed_memory
from zeroshift.methods.source_images import FreshBatch

SHARED = {name: FreshBatch.__dict__[name] for name in ("images", "features")}


def remember(remembered: dict[Any, Any]) -> None:
    """Makes batches take their images and features from earlier equal batches."""
    for name, computed in SHARED.items():

        def get(batch: FreshBatch, name: str = name, computed: Any = computed) -> Any:
            key = (name, batch.noise_seed, tuple(batch.samples), batch.latents.numpy().tobytes())
            if key not in remembered:
                remembered[key] = computed.func(batch)
            return remembered[key]

        replaced = cached_property(get)
        replaced.__set_name__(FreshBatch, name)
        setattr(FreshBatch, name, replaced)


def forget() -> None:
    """Makes batches compute their own images and features again."""
    for name, computed in SHARED.items():
        setattr(FreshBatch, name, computed)


def run(target: str, steps: int) -> tuple[float, dict[str, Tensor]]:
    """Processor seconds of an adaptation by IPL in the miniature world, and the adapted weights."""
    config = preset("miniature", target=target, method="ipl", steps=steps, device="cpu", prompts={"steps": steps})
    start = time.process_time()
    weights = adapt(config).generator.state_dict()
    return time.process_time() - start, weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="steps of each stage (default: 20)")
    parser.add_argument("--rounds", type=int, default=2, help="measurements; the first one warms up (default: 2)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    for number in range(options.rounds):
        alone = [run(target, options.steps) for target in ("zombie", "robot")]
        remember({})
        sharing = [run(target, options.steps) for target in ("zombie", "robot")]
        forget()
        equal = all(torch.equal(a[1][name], b[1][name]) for a, b in zip(alone, sharing, strict=True) for name in a[1])
        texts = [" + ".join(f"{seconds:.1f}" for seconds, _ in both) for both in (alone, sharing)]
        print(f"round {number}: separate {texts[0]} s, sharing {texts[1]} s, equal weights: {equal}", flush=True)


if __name__ == "__main__":
    main()
