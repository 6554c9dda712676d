"""Adapts a pretrained image generator to a new visual domain, from text alone.

    from zeroshift import adapt, preset
    result = adapt(preset("miniature", target="zombie"))

Names are imported on first use, so that `import zeroshift` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeroshift.api.comparison import Comparison, compare_methods
    from zeroshift.api.drawing import Drawing, draw
    from zeroshift.api.films import interpolate
    from zeroshift.api.live import LiveView
    from zeroshift.api.photos import invert, translate
    from zeroshift.api.pictures import save_image
    from zeroshift.api.samples import generate
    from zeroshift.api.sharing import export, push
    from zeroshift.api.sheets import picture
    from zeroshift.clip.encoder import Encoder
    from zeroshift.clip.loading import load_encoder
    from zeroshift.config.settings import AdaptConfig, AdaptStage
    from zeroshift.errors import ZeroshiftError
    from zeroshift.evaluation.evaluate import Evaluation, References, evaluate
    from zeroshift.generators.base import Generator, blend_weights
    from zeroshift.generators.checkpoints.files import export_generator, load_generator, save_generator
    from zeroshift.generators.diffusion.options import DDIMOptions
    from zeroshift.generators.module import ModuleSpec, wrap_generator
    from zeroshift.inversion.inverted import Inverted
    from zeroshift.inversion.inverter import Inverter
    from zeroshift.inversion.loading import load_inversion_encoder
    from zeroshift.inversion.options import InversionOptions
    from zeroshift.inversion.translate import Translator
    from zeroshift.io.films import save_film
    from zeroshift.methods.base import Method, Stage
    from zeroshift.methods.configure import changed, default_config, preset
    from zeroshift.methods.ipl import IPLOptions, PromptStage
    from zeroshift.report.page import write_report
    from zeroshift.sampling.film import walk
    from zeroshift.training.callbacks import StepEvent
    from zeroshift.training.result import AdaptResult
    from zeroshift.training.run_folder import RunFolder
    from zeroshift.training.trainer import adapt, adapt_together

    __version__: str

__all__ = [
    "AdaptConfig",
    "AdaptResult",
    "AdaptStage",
    "Comparison",
    "DDIMOptions",
    "Drawing",
    "Encoder",
    "Evaluation",
    "Generator",
    "IPLOptions",
    "InversionOptions",
    "Inverted",
    "Inverter",
    "LiveView",
    "Method",
    "ModuleSpec",
    "PromptStage",
    "References",
    "RunFolder",
    "Stage",
    "StepEvent",
    "Translator",
    "ZeroshiftError",
    "__version__",
    "adapt",
    "adapt_together",
    "blend_weights",
    "changed",
    "compare_methods",
    "default_config",
    "draw",
    "evaluate",
    "export",
    "export_generator",
    "generate",
    "interpolate",
    "invert",
    "load_encoder",
    "load_generator",
    "load_inversion_encoder",
    "picture",
    "preset",
    "push",
    "save_film",
    "save_generator",
    "save_image",
    "translate",
    "walk",
    "wrap_generator",
    "write_report",
]

_MODULES = {
    "api.comparison": ("Comparison", "compare_methods"),
    "api.drawing": ("Drawing", "draw"),
    "api.films": ("interpolate",),
    "api.photos": ("invert", "translate"),
    "api.live": ("LiveView",),
    "api.pictures": ("save_image",),
    "api.samples": ("generate",),
    "api.sheets": ("picture",),
    "api.sharing": ("export", "push"),
    "clip.encoder": ("Encoder",),
    "clip.loading": ("load_encoder",),
    "config.settings": ("AdaptConfig", "AdaptStage"),
    "errors": ("ZeroshiftError",),
    "evaluation.evaluate": ("Evaluation", "References", "evaluate"),
    "generators.base": ("Generator", "blend_weights"),
    "generators.checkpoints.files": ("export_generator", "load_generator", "save_generator"),
    "generators.module": ("ModuleSpec", "wrap_generator"),
    "inversion.inverted": ("Inverted",),
    "inversion.inverter": ("Inverter",),
    "inversion.loading": ("load_inversion_encoder",),
    "inversion.options": ("InversionOptions",),
    "inversion.translate": ("Translator",),
    "methods.base": ("Method", "Stage"),
    "methods.configure": ("changed", "default_config", "preset"),
    "generators.diffusion.options": ("DDIMOptions",),
    "methods.ipl": ("IPLOptions", "PromptStage"),
    "report.page": ("write_report",),
    "sampling.film": ("walk",),
    "io.films": ("save_film",),
    "training.callbacks": ("StepEvent",),
    "training.run_folder": ("RunFolder",),
    "training.result": ("AdaptResult",),
    "training.trainer": ("adapt", "adapt_together"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("zeroshift")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
