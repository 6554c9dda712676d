"""Settings of an adaptation run, as frozen dataclasses.

A setting has a dotted name, such as "adapt.lr": on the command line (`--adapt.lr`), in config.json and in reports.
Settings of a method (`AdaptConfig.options`) are at the top level: for example, "prompts.steps" of IPL's prompt stage.
`zeroshift.methods.configure` makes configurations from presets, `methods.config_file` reads and writes them.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from zeroshift.config.changes import full_names, replaced
from zeroshift.config.schema import check_types, require
from zeroshift.errors import ZeroshiftError

__all__ = ["AdaptConfig", "AdaptStage", "GeneratorOptions", "MethodOptions"]

DirectionalForm = Literal["cosine", "log"]
NoiseMode = Literal["const", "random", "none"]
Precision = Literal["float32", "tf32", "bf16"]
Resize = Literal["antialias", "published"]
CompileMode = Literal["default", "reduce-overhead"]
LayerCodes = Literal["new", "batch"]
LayerPrecision = Literal["same", "bf16"]
UnchosenGradient = Literal["none", "zero"]


@dataclass(frozen=True)
class AdaptStage:
    """The adapt stage, which trains the generator. The defaults are the numbers of IPL's published program."""

    steps: int = 300
    """Optimizer steps."""
    batch_size: int = 2
    """Images per step, over all processes."""
    grad_accumulation_steps: int = 1
    """Gradient-accumulation steps: equal parts of a batch, computed one after another to save memory."""
    lr: float = 0.002 * 4 / 5
    """Adam's learning rate."""
    lr_final: float | None = None
    """Final learning rate (geometric decay); None keeps it constant."""
    betas: tuple[float, float] = (0.0, 0.99 ** (4 / 5))
    """Adam's decay rates."""
    ema_decay: float = 0.99
    """Decay of the moving average of the weights. The average is the adapted generator."""
    layers: tuple[str, ...] = ("adaptive",)
    """`adaptive` (a choice in training; `all` for generators without it), `all`, names, or patterns ('*.conv?')."""
    num_layers: int | None = None
    """Number of layers that `adaptive` chooses; None: two thirds of the candidates, as published."""
    layer_batch_size: int = 8
    """Latents per step for the adaptive choice of layers."""
    layer_lr: float = 0.01
    """Learning rate of the codes in the adaptive choice."""
    layer_steps: int = 1
    """Gradient steps on the codes in the adaptive choice."""
    layer_codes: LayerCodes = "new"
    """Codes of the adaptive choice: new latents with their own forward pass, or the training batch and its pass."""
    layer_every: int = 1
    """Steps between two adaptive choices; in between, the layers stay."""
    layer_precision: LayerPrecision = "same"
    """Arithmetic of the adaptive choice: that of the run, or bf16."""
    unchosen_gradient: UnchosenGradient = "none"
    """Gradient that Adam sees for layers that are not chosen: none (skipped), or zero (moments decay: PyTorch 1)."""
    noise_mode: NoiseMode = "random"
    """Noise inputs of the generator during training."""
    augmentations: int = 0
    """Augmented copies (random crop and rotation) that the guidance encoder sees; 0: the image itself."""
    directional_weight: float = 1.0
    """Weight of the directional loss L."""
    directional_form: DirectionalForm = "cosine"
    """L itself (cosine), or -log((2 - L) / 2) (log)."""
    clamp_images: bool = False
    """Show the guidance encoder images clamped to [-1, 1], as they are saved; gradients still pull values back."""
    range_weight: float = 0.0
    """Weight of the range loss: mean squared excess of pixel values over [-1, 1]."""
    l1_weight: float = 0.0
    """Weight of the mean absolute difference between source and target image."""
    identity_weight: float = 0.0
    """Weight of the identity loss, 1 - cosine of the identity network's features of source and target image."""
    identity_network: str = "face"
    """Feature network of the identity loss; the networks are those of `zeroshift evaluate`."""
    gradient_checkpointing: bool = False
    """Recompute activations of the generator in the backward pass to save memory."""
    lora_rank: int = 0
    """Rank of low-rank updates (LoRA) that train instead of the full weights; 0: full weights."""

    def validate(self) -> None:
        """Checks the values.

        Raises:
            ZeroshiftError: naming the first setting with an invalid value.
        """
        for name in (
            "steps", "batch_size", "grad_accumulation_steps", "layer_batch_size", "layer_steps", "layer_every"
        ):  # fmt: skip
            _at_least(f"adapt.{name}", getattr(self, name), 1)
        for name in (
            "augmentations",
            "directional_weight",
            "range_weight",
            "l1_weight",
            "identity_weight",
            "lora_rank",
        ):
            _at_least(f"adapt.{name}", getattr(self, name), 0)
        _at_least("adapt.num_layers", 1 if self.num_layers is None else self.num_layers, 1)
        for name, value in (("lr", self.lr), ("lr_final", self.lr_final), ("layer_lr", self.layer_lr)):
            require(value is None or value > 0, f"adapt.{name} is {value}; it must be positive.")
        for name, value in (("ema_decay", self.ema_decay), *(("betas", beta) for beta in self.betas)):
            require(0 <= value < 1, f"adapt.{name} is {value}; it must be at least 0 and below 1.")
        require(
            self.batch_size % self.grad_accumulation_steps == 0,
            f"adapt.batch_size = {self.batch_size} is not divisible by "
            f"adapt.grad_accumulation_steps = {self.grad_accumulation_steps}.",
        )
        for name, only in (("layer_steps", 1), ("grad_accumulation_steps", 1), ("layer_precision", "same")):
            value = getattr(self, name)
            require(
                self.layer_codes == "new" or value == only,
                f"adapt.{name} is {value}; adapt.layer_codes = batch, which takes the gradient of the training step, "
                f"needs {only}.",
            )
        require(
            len(self.layers) > 0 and (len(self.layers) == 1 or not {"adaptive", "all"} & set(self.layers)),
            "adapt.layers must be 'adaptive' alone, 'all' alone, or one or more names of layers.",
        )


@dataclass(frozen=True)
class MethodOptions:
    """Base of a method's own settings, which are a subclass in the method's file."""

    def validate(self) -> None:
        """Checks the values.

        Raises:
            ZeroshiftError: naming the first setting with an invalid value.
        """


@dataclass(frozen=True)
class GeneratorOptions:
    """Base of a generator family's own settings, which are a subclass beside the family."""

    def validate(self) -> None:
        """Checks the values.

        Raises:
            ZeroshiftError: naming the first setting with an invalid value.
        """


@dataclass(frozen=True)
class AdaptConfig:
    """One adaptation: from `source` to `target` with a method, a generator and one or more guidance encoders."""

    target: str
    """Label of the new domain, such as "disney"."""
    source: str = "photo"
    """Label of the generator's own domain."""
    target_texts: tuple[str, ...] = ()
    """Further texts that describe the new domain, mixed with the label: TEXT, or TEXT=WEIGHT; the label weighs 1."""
    target_images: tuple[str, ...] = ()
    """Example images of the new domain, one or more, which define the direction instead of the texts."""
    image_weight: float = 1.0
    """Share of the example images in the direction: 1 images alone, 0.5 images and texts alike."""
    generator: str = "miniature"
    """Checkpoint file, known name (`zeroshift models`), or any torch module as PACKAGE.MODULE:FUNCTION."""
    family: str = ""
    """Generator family; empty: unknown until the generator is loaded."""
    encoders: tuple[str, ...] = ("miniature",)
    """Guidance encoders (CLIP models), used together: "MODEL/PRETRAINED", a file, or a known name."""
    encoder_weights: tuple[float, ...] = ()
    """Weight of each encoder; empty: 1 each."""
    method: str = "ipl"
    """Adaptation method (docs/methods.md). Embedded models have a default method of their own."""
    source_images_dir: str = ""
    """Folder of real source images, each inverted once, that replace latents."""
    num_latents: int = 0
    """Size of the fixed set of latents (image bank) that the run draws from; 0: new latents at every step."""
    class_index: int | None = None
    """Class of a class-conditional generator."""
    seed: int = 0
    """Seed of all random numbers."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto`: the accelerator if there is one."""
    precision: Precision = "float32"
    """Arithmetic of the networks; weights and losses stay float32. tf32: matrix products of NVIDIA GPUs only."""
    compile: bool = False
    """Compile the networks with torch.compile."""
    compile_mode: CompileMode = "default"
    """Mode of torch.compile: default, or reduce-overhead, which records CUDA graphs and needs more memory."""
    resize: Resize = "antialias"
    """Resampling of images to the encoder's resolution."""
    truncation_psi: float = 0.7
    """Truncation of samples: previews, report, `generate`, `evaluate`. Training does not truncate."""
    preview_every: int = 50
    """Steps between preview grids; 0: only at the end."""
    preview_samples: int = 8
    """Samples in a preview grid."""
    checkpoint_every: int = 100
    """Steps between checkpoints, from which a run resumes; 0: only on interruption."""
    keep_checkpoints: bool = False
    """Keep the checkpoints of a finished run, so that more steps can extend it."""
    log_with: tuple[str, ...] = ("tensorboard",)
    """Experiment trackers: tensorboard, wandb, mlflow, trackio, comet_ml, clearml, swanlab, aim or dvclive."""
    adapt: AdaptStage = field(default_factory=AdaptStage)
    options: MethodOptions = field(default_factory=MethodOptions)
    """Settings of the method, an instance of its `Options`; a plain MethodOptions stands for the defaults."""
    sampling: GeneratorOptions = field(default_factory=GeneratorOptions)
    """Settings of the generator family, an instance of its `Options`; a plain GeneratorOptions: the defaults."""

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each encoder."""
        return self.encoder_weights or (1.0,) * len(self.encoders)

    @property
    def weighted_texts(self) -> dict[str, float]:
        """The texts of the target domain with their weights: the label, and `target_texts`.

        Raises:
            ZeroshiftError: if a text is empty or a weight is not positive.
        """
        weights = {self.target: 1.0}
        for entry in self.target_texts:
            text, weight = _weighted(entry)
            require(
                bool(text.strip()) and 0 < weight < math.inf,
                f"The target text {entry!r:.200} (target_texts) must be TEXT or TEXT=WEIGHT with a positive weight, "
                "such as 'undead=0.5'.",
            )
            weights[text] = weights.get(text, 0.0) + weight
        return weights

    def replace(self, **changes: Any) -> "AdaptConfig":
        """The configuration with other values: `config.replace(seed=1, steps=20, adapt={"lr": 0.01})`.

        Args:
            changes: settings by name, nested as mappings or dotted (`**{"adapt.lr": 0.01}`), with the short names of
                the command line.

        Raises:
            ZeroshiftError: if there is no such setting, a value has another type, or the method or generator is
                another one, which has other settings: `zeroshift.changed` chooses those.
        """
        config = self
        for name, value in full_names(self, changes).items():
            if name in ("method", "generator") and value != getattr(self, name):
                raise ZeroshiftError(
                    f"Another {name} has other settings. Use zeroshift.changed(config, {{{name!r}: {value!r}}}), or "
                    "make a new configuration with zeroshift.preset."
                )
            config = replaced(config, name, value)
        check_types(config)
        return config

    def validate(self) -> None:
        """Checks the values of all settings; `methods.configure.resolve` also checks the method.

        Raises:
            ZeroshiftError: naming the first setting with an invalid value.
        """
        check_types(self)
        source, target = self.source.strip(), self.target.strip()
        require(bool(target), "The target label is empty. Name the new domain, such as 'disney'.")
        require(bool(source), "The source label is empty. Name the generator's own domain, such as 'photo'.")
        require(
            source.casefold() != target.casefold(),
            f"Source and target are both {target!r}, so there is no direction between them. Change one of them.",
        )
        for text in self.weighted_texts:
            require(
                source.casefold() != text.strip().casefold(),
                f"The target text {text!r} is the source label. Describe the new domain.",
            )
        require(0 <= self.image_weight <= 1, f"image_weight is {self.image_weight}; it must be between 0 and 1.")
        require(bool(self.generator), "The generator is empty. Name a checkpoint file or a known generator.")
        require(len(self.encoders) > 0 and all(self.encoders), "An encoder is missing or empty. Name at least one.")
        require(
            len(self.weights) == len(self.encoders),
            f"{len(self.encoders)} encoders, but {len(self.encoder_weights)} encoder weights. Give one each, or none.",
        )
        require(all(weight > 0 for weight in self.weights), "Encoder weights must be positive numbers.")
        for name in ("seed", "preview_every", "checkpoint_every", "num_latents"):
            _at_least(name, getattr(self, name), 0)
        _at_least("preview_samples", self.preview_samples, 1)
        _at_least("class_index", self.class_index or 0, 0)
        require(
            not (self.source_images_dir and self.num_latents),
            "Both source_images_dir and num_latents are set, but a run starts from one or the other: "
            "set num_latents to 0 (--num-latents 0) for real images.",
        )
        require(
            self.compile or self.compile_mode == "default",
            f"compile_mode is {self.compile_mode}, but the networks are not compiled. Add --compile, or leave it out.",
        )
        require(self.truncation_psi > 0, f"truncation_psi is {self.truncation_psi}; it must be positive.")
        for part in (self.adapt, self.options, self.sampling):
            part.validate()


def _weighted(entry: str) -> tuple[str, float]:
    """A text and its weight, from "TEXT=WEIGHT" or "TEXT"."""
    text, equals, number = entry.rpartition("=")
    try:
        return (text, float(number)) if equals else (entry, 1.0)
    except ValueError:  # an equals sign within the text
        return entry, 1.0


def _at_least(name: str, value: float, minimum: float) -> None:
    require(value >= minimum, f"{name} is {value}; it must be at least {minimum}.")
