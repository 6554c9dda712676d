"""Everything an adaptation run depends on, as frozen dataclasses with a JSON form. Presets hold numbers only."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zeroshift.config.schema import build, check_types, require
from zeroshift.errors import ZeroshiftError

__all__ = [
    "PRESETS", "AdaptConfig", "AdaptStage", "GeneratorOptions", "MethodOptions", "PromptStage", "Sampling",  "changed", "flat", "preset",
]  # fmt: skip

BaseText = Literal["published", "label", "none"]
DirectionalForm = Literal["cosine", "log"]
NoiseMode = Literal["const", "random", "none"]
Precision = Literal["float32", "bf16"]
Resize = Literal["antialias", "published"]


@dataclass(frozen=True)
class PromptStage:
    """Stage 1, IPL's latent mapper. The preset "published" has the numbers of the published program."""

    steps: int = 300
    """Optimiser steps."""
    batch_size: int = 32
    """Images a step, over all processes; the contrastive term tells each from the others."""
    lr: float = 0.05
    """Adam's learning rate."""
    num_context: int = 4
    """Context vectors that the mapper makes for an image."""
    context_init: str = "a photo of a"
    """Words of the plain text whose feature is added to that of a learned prompt."""
    domain_weight: float = 1.0
    """λ: how strongly a learned prompt with the target label must stay a prompt of the target domain."""
    source_weight: float = 0.0
    """The same for the source label."""
    base_text: BaseText = "published"
    """The plain text has the label in stage 1 only (published) or in both stages (label), or there is none (none)."""


@dataclass(frozen=True)
class AdaptStage:
    """Stage 2, the adaptation of the generator. The preset "published" has the numbers of the published program."""

    steps: int = 300
    """Optimiser steps."""
    batch_size: int = 2
    """Images a step, over all processes."""
    grad_accumulation_steps: int = 1
    """Parts a batch is worked off in, to save memory; they change no result."""
    lr: float = 0.002 * 4 / 5
    """Adam's learning rate."""
    lr_final: float | None = None
    """Its value at the last step, where it comes to geometrically; None: it stays."""
    betas: tuple[float, float] = (0.0, 0.99 ** (4 / 5))
    """Adam's decay rates."""
    ema_decay: float = 0.99
    """Decay of the moving average of weights, which is what is delivered."""
    layers: tuple[str, ...] = ("adaptive",)
    """`adaptive`: chosen anew every step; `all`; or names of layers of the generator."""
    num_layers: int | None = None
    """How many layers `adaptive` chooses; None: two thirds of the candidates, as published."""
    layer_batch_size: int = 8
    """Latents that `adaptive` tries."""
    layer_lr: float = 0.01
    """Step size with which it moves them."""
    layer_steps: int = 1
    """Steps it moves them by."""
    noise_mode: NoiseMode = "random"
    """Noise inputs of the generator while it trains."""
    augmentations: int = 0
    """Randomly cropped and turned copies of an image that guide in its place; 0: the image itself."""
    directional_weight: float = 1.0
    """Weight of the directional loss L."""
    directional_form: DirectionalForm = "cosine"
    """L as it stands (cosine), or -log((2 - L) / 2) (log)."""
    l1_weight: float = 0.0
    """Weight of the mean absolute difference between source and target image."""
    identity_weight: float = 0.0
    """Weight of how far a recogniser finds source and target image apart."""
    identity_network: str = "face"
    """That recogniser: a feature network, as for `zeroshift evaluate`."""
    lora_rank: int = 0
    """Rank of low-rank updates that train in place of the weights themselves (diffusion models); 0: none."""


@dataclass(frozen=True)
class Sampling:
    """How a diffusion generator makes an image: by deterministic DDIM. Other generators take no notice.

    The defaults are DiffusionCLIP's, but for `noise_steps`: there all images are real.
    """

    t0: float = 0.5
    """Noise level, as a share of all, at which source and target part; 1: at pure noise."""
    noise_steps: int = 20
    """Steps from pure noise to t0, by the source."""
    steps: int = 6
    """Steps from t0 to the image; the training goes through them all."""
    invert_steps: int = 40
    """Steps from a real image to t0."""
    clip_sample: bool = True
    """Clip the image predicted at a step, if the model's schedule does; an inverted image comes back better without."""
    train_each_step: bool = False
    """Train at each step on the image predicted there, in the memory of one step, instead of through all of them."""
    gradient_checkpointing: bool = False
    """Keep no activations but those between steps, and compute the others again for the gradient."""


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
    """Base of a generator family's own settings, which are a subclass beside the family. None here."""

    def validate(self) -> None:
        """Checks the values.

        Raises:
            ZeroshiftError: naming the first setting with an invalid value.
        """


@dataclass(frozen=True)
class AdaptConfig:
    """One adaptation: from `source` to `target` with a method, a generator and one or more encoders."""

    target: str
    """Label of the new domain, such as "disney"."""
    source: str = "photo"
    """Label of the domain that the generator knows."""
    generator: str = "miniature"
    """A checkpoint file, a known name, or "miniature"."""
    encoders: tuple[str, ...] = ("miniature",)
    """CLIP models that guide together: "MODEL/PRETRAINED", a file, or "miniature"."""
    encoder_weights: tuple[float, ...] = ()
    """A weight for each encoder; empty: 1 each."""
    method: str = "ipl"
    """How an image gets its text direction: ipl, nada, air, svl or domain-vector (docs/methods.md)."""
    target_images: tuple[str, ...] = ()
    """Example images of the new domain; NADA takes its direction from them instead of the labels."""
    source_images_dir: str = ""
    """Folder of real images to start from, each inverted once, in place of latents (diffusion models)."""
    num_latents: int = 0
    """How many latents the run draws from, pass after pass; 0: new ones at every step."""
    class_index: int | None = None
    """Class of a class-conditional generator."""
    seed: int = 0
    """Every random number follows from it."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto`: the accelerator if there is one."""
    precision: Precision = "float32"
    """Arithmetic of the networks; weights and losses stay float32."""
    compile: bool = False
    """Compile the networks with torch.compile."""
    resize: Resize = "antialias"
    """How images come to the size of the encoder."""
    truncation_psi: float = 0.7
    """Truncation of the samples in previews and reports; training does not truncate."""
    preview_every: int = 50
    """Steps between preview grids; 0: at the end only."""
    preview_samples: int = 8
    """Samples in a preview grid."""
    checkpoint_every: int = 100
    """Steps between checkpoints from which a run resumes; 0: only when interrupted."""
    prompts: PromptStage = field(default_factory=PromptStage)
    adapt: AdaptStage = field(default_factory=AdaptStage)
    diffusion: Sampling = field(default_factory=Sampling)
    options: MethodOptions = field(default_factory=MethodOptions)
    """Of the method's own class; a plain `MethodOptions` stands for its defaults."""

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each encoder."""
        return self.encoder_weights or (1.0,) * len(self.encoders)

    def validate(self) -> "AdaptConfig":
        """This configuration, if a run can start from it.

        Raises:
            ZeroshiftError: naming the first field whose value makes no sense.
        """
        from zeroshift.methods import METHODS, method_class  # here, as methods import this module

        check_types(self)
        source, target = self.source.strip(), self.target.strip()
        require(bool(target), "The target label is empty. Give the new domain a name, such as 'disney'.")
        require(bool(source), "The source label is empty. Name the generator's own domain, such as 'photo'.")
        require(
            source.casefold() != target.casefold(),
            f"Source and target are both {target!r}, so there is no direction to go. Change one of them.",
        )
        require(
            self.method in METHODS,
            f"There is no method {self.method!r}. The methods are: {', '.join(METHODS)}.",
        )
        if type(self.options) is not MethodOptions:
            kind = method_class(self.method).Options
            require(type(self.options) is kind, f"The options of {self.method!r} are: {_field_names(kind)}.")
            self.options.validate()
        require(
            not self.target_images or self.method == "nada",
            "Only the method 'nada' takes its direction from target images. Choose it, or leave the images out.",
        )
        require(bool(self.generator), "The generator is empty. Name a checkpoint file, a known name or 'miniature'.")
        require(len(self.encoders) > 0 and all(self.encoders), "An encoder is missing or empty. Name at least one.")
        require(
            len(self.weights) == len(self.encoders),
            f"{len(self.encoders)} encoders, but {len(self.encoder_weights)} encoder weights. Give one each, or none.",
        )
        require(all(weight > 0 for weight in self.weights), "Encoder weights must be positive numbers.")
        prompts, adapt = self.prompts, self.adapt
        for name, value, least in (
            ("seed", self.seed, 0),
            ("preview_every", self.preview_every, 0),
            ("preview_samples", self.preview_samples, 1),
            ("checkpoint_every", self.checkpoint_every, 0),
            ("class_index", self.class_index or 0, 0),
            ("prompts.steps", prompts.steps, 1),
            ("prompts.batch_size", prompts.batch_size, 2),
            ("prompts.num_context", prompts.num_context, 1),
            ("prompts.domain_weight", prompts.domain_weight, 0),
            ("prompts.source_weight", prompts.source_weight, 0),
            ("adapt.steps", adapt.steps, 1),
            ("adapt.batch_size", adapt.batch_size, 1),
            ("adapt.grad_accumulation_steps", adapt.grad_accumulation_steps, 1),
            ("adapt.num_layers", 1 if adapt.num_layers is None else adapt.num_layers, 1),
            ("adapt.layer_batch_size", adapt.layer_batch_size, 1),
            ("adapt.layer_steps", adapt.layer_steps, 1),
            ("adapt.augmentations", adapt.augmentations, 0),
            ("adapt.directional_weight", adapt.directional_weight, 0),
            ("adapt.l1_weight", adapt.l1_weight, 0),
            ("adapt.identity_weight", adapt.identity_weight, 0),
            ("adapt.lora_rank", adapt.lora_rank, 0),
            ("num_latents", self.num_latents, 0),
            ("diffusion.noise_steps", self.diffusion.noise_steps, 1),
            ("diffusion.steps", self.diffusion.steps, 1),
            ("diffusion.invert_steps", self.diffusion.invert_steps, 1),
        ):
            require(value >= least, f"{name} is {value}; it must be at least {least}.")
        require(
            not (self.source_images_dir and self.num_latents),
            "Real images and a number of latents are both given, and a run starts from the one or the other: "
            "set num_latents to 0 (--num-latents 0) for the images.",
        )
        for name, value in (
            ("prompts.lr", prompts.lr),
            ("adapt.lr", adapt.lr),
            ("adapt.lr_final", adapt.lr if adapt.lr_final is None else adapt.lr_final),
            ("diffusion.t0", self.diffusion.t0),
            ("adapt.layer_lr", adapt.layer_lr),
            ("truncation_psi", self.truncation_psi),
        ):
            require(value > 0, f"{name} is {value}; it must be positive.")
        for name, value in (("adapt.ema_decay", adapt.ema_decay), *(("adapt.betas", beta) for beta in adapt.betas)):
            require(0 <= value < 1, f"{name} is {value}; it must be at least 0 and below 1.")
        require(self.diffusion.t0 <= 1, f"diffusion.t0 is {self.diffusion.t0}; it is a share of the levels, at most 1.")
        require(
            prompts.base_text == "none" or bool(prompts.context_init.strip()),
            "prompts.context_init is empty. Give its words ('a photo of a'), or set prompts.base_text to 'none'.",
        )
        require(
            adapt.batch_size % adapt.grad_accumulation_steps == 0,
            f"adapt.batch_size = {adapt.batch_size} is not divisible by "
            f"adapt.grad_accumulation_steps = {adapt.grad_accumulation_steps}.",
        )
        require(
            len(adapt.layers) > 0 and (len(adapt.layers) == 1 or not {"adaptive", "all"} & set(adapt.layers)),
            "adapt.layers is 'adaptive' alone, 'all' alone, or one or more names of layers.",
        )
        return self

    def to_json(self) -> str:
        """The configuration as indented JSON, fields in order."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "AdaptConfig":
        """The configuration that `to_json` wrote.

        Raises:
            ZeroshiftError: if the text is no JSON, has unknown or missing fields, or values that make no sense.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ZeroshiftError(f"The configuration is not valid JSON ({error}). Mend or delete the file.") from error
        return build(cls, values, _class_of_field).validate()


# "published" has the numbers of the programs for StyleGAN2, "diffusion" those of DiffusionCLIP: five passes over fifty
# images. docs/miniature.md says how the miniature ones were chosen.
PRESETS: dict[str, dict[str, Any]] = {
    "published": {"prompts": PromptStage(), "adapt": AdaptStage()},
    "diffusion": {
        "truncation_psi": 1.0,
        "num_latents": 50,
        "prompts": PromptStage(),
        "adapt": AdaptStage(
            steps=250,
            batch_size=1,
            lr=2e-6,
            lr_final=8e-6,
            betas=(0.9, 0.999),
            ema_decay=0.0,
            layers=("all",),
            noise_mode="const",
            directional_weight=3.0,
            directional_form="log",
            l1_weight=0.3,
        ),
        "diffusion": Sampling(clip_sample=False),
    },
    "miniature": {
        "truncation_psi": 1.0,  # the truth beside a picture belongs to the whole latent
        "prompts": PromptStage(steps=100, base_text="label"),
        "adapt": AdaptStage(
            steps=240, batch_size=4, lr=0.012, ema_decay=0.97, noise_mode="const", augmentations=4, layer_batch_size=4
        ),
    },
    "miniature-diffusion": {
        "truncation_psi": 1.0,
        "encoders": ("miniature",),
        "num_latents": 48,
        "prompts": PromptStage(steps=100, base_text="label"),
        "adapt": AdaptStage(
            steps=100,
            batch_size=2,
            lr=6e-4,
            betas=(0.9, 0.999),
            ema_decay=0.97,
            layers=("all",),
            noise_mode="const",
            augmentations=4,
        ),
        "diffusion": Sampling(t0=0.6, noise_steps=8, steps=4, invert_steps=12, clip_sample=False),
    },
}


def preset(name: str, target: str, **fields: Any) -> AdaptConfig:
    """The numbers of a preset, and of the method (IPL, if `fields` names none), with a target and any other fields.

    Raises:
        ZeroshiftError: if there is no such preset or method.
    """
    require(name in PRESETS, f"There is no preset {name!r}. The presets are: {', '.join(PRESETS)}.")
    config = AdaptConfig(target=target, **PRESETS[name])
    method = _method(fields.get("method", config.method))
    config = changed(config, {"options": method.Options(), **method.presets.get(name, {})})
    return dataclasses.replace(config, **fields)


def changed(config: AdaptConfig, changes: Mapping[str, Any]) -> AdaptConfig:
    """The configuration with other values at dotted names, such as {"adapt.lr": 0.005, "method": "nada"}.

    Raises:
        ZeroshiftError: if there is no setting of such a name.
    """
    for name, value in changes.items():
        path = name.split(".")
        owners: list[Any] = [config]
        for part in path[:-1]:
            owners.append(getattr(owners[-1], part, None))
        known = dataclasses.is_dataclass(owners[-1]) and path[-1] in {f.name for f in dataclasses.fields(owners[-1])}
        require(known, f"There is no setting {name!r}. Settings are named as in config.json, such as adapt.lr.")
        for owner, part in zip(reversed(owners), reversed(path), strict=True):
            value = dataclasses.replace(owner, **{part: value})
        config = value
    return config


def _method(name: str) -> Any:
    from zeroshift.methods import METHODS, method_class

    require(name in METHODS, f"There is no method {name!r}. The methods are: {', '.join(METHODS)}.")
    return method_class(name)


def _field_names(kind: type) -> str:
    return ", ".join(spec.name for spec in dataclasses.fields(kind)) or "none"


def _class_of_field(kind: type, values: Mapping[str, Any]) -> type:
    """The method's own class for its options; otherwise the field's."""
    return _method(values.get("method", AdaptConfig.method)).Options if kind is MethodOptions else kind


def flat(config: AdaptConfig) -> dict[str, Any]:
    """The settings by dotted name ("adapt.lr"), as they stand in JSON."""
    settings: dict[str, Any] = {}
    for name, value in json.loads(config.to_json()).items():
        settings |= (
            {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
        )
    return settings
