"""The folder of a run that is given none."""

import contextlib
import re
from pathlib import Path

from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.training.run_folder import RunFolder

__all__ = ["default_folder"]


def default_folder(config: AdaptConfig) -> Path:
    """runs/GENERATOR-TARGET-METHOD, and -seed-N for other seeds than 0, in characters that every file system accepts.

    A folder without the seed that holds a run of this seed, as version 0.1 named it, is kept.
    """
    parts = (Path(config.generator).stem, config.target, config.method)
    plain = Path("runs") / "-".join(re.sub(r"[^\w.]+", "-", part).strip("-.").lower()[:40] for part in parts)
    if config.seed == AdaptConfig.seed:
        return plain
    with contextlib.suppress(ZeroshiftError):
        if RunFolder.read(plain).config.seed == config.seed:
            return plain
    return plain.with_name(f"{plain.name}-seed-{config.seed}")
