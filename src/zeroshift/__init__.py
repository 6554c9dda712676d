"""Move a pretrained image generator to a new visual domain from text alone.

    from zeroshift import adapt, preset
    result = adapt(preset("miniature", target="zombie"))

Names are imported when they are first used, so that `import zeroshift` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeroshift.clip.encoder import Encoder
    from zeroshift.clip.loading import load_encoder
    from zeroshift.config.settings import AdaptConfig, AdaptStage, PromptStage, preset
    from zeroshift.errors import ZeroshiftError
    from zeroshift.evaluation.evaluate import Evaluation, References, evaluate
    from zeroshift.generators.base import Generator
    from zeroshift.generators.checkpoints.files import export_generator, load_generator, save_generator
    from zeroshift.sampling.film import walk
    from zeroshift.sampling.generate import blend_weights, generate
    from zeroshift.training.run_folder import RunFolder
    from zeroshift.training.trainer import AdaptResult, adapt

__all__ = [
    "AdaptConfig",
    "AdaptResult",
    "AdaptStage",
    "Encoder",
    "Evaluation",
    "Generator",
    "PromptStage",
    "References",
    "RunFolder",
    "ZeroshiftError",
    "adapt",
    "blend_weights",
    "evaluate",
    "export_generator",
    "generate",
    "load_encoder",
    "load_generator",
    "preset",
    "save_generator",
    "walk",
]

_MODULES = {
    "config.settings": ("AdaptConfig", "AdaptStage", "PromptStage", "preset"),
    "clip.encoder": ("Encoder",),
    "clip.loading": ("load_encoder",),
    "errors": ("ZeroshiftError",),
    "evaluation.evaluate": ("Evaluation", "References", "evaluate"),
    "generators": ("export_generator", "load_generator", "save_generator"),
    "generators.base": ("Generator",),
    "training.run_folder": ("RunFolder",),
    "sampling.film": ("walk",),
    "sampling.generate": ("blend_weights", "generate"),
    "training.trainer": ("AdaptResult", "adapt"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
