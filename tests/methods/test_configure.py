"""Presets, dotted names, config.json, and run folders of version 0.1."""

import ast
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zeroshift
from zeroshift.config.renamed import RENAMED, current_name
from zeroshift.config.settings import AdaptConfig, AdaptStage, GeneratorOptions
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.generators.registry import FAMILIES
from zeroshift.methods.config_file import from_json, to_json
from zeroshift.methods.configure import changed, default_config, flat, preset, resolve, settings
from zeroshift.methods.ipl import IPLOptions, PromptStage
from zeroshift.methods.registry import METHODS, PRESETS, Preset
from zeroshift.methods.svl import SVLOptions

GENERATORS = ("miniature", "miniature-diffusion", "ffhq.pkl")


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_for_every_method_and_survives_json(name: str, method: str, generator: str) -> None:
    fields: dict[str, Any] = {"seed": 3, "encoders": ("a", "b"), "encoder_weights": (1.0, 0.5)}
    config = resolve(preset(name, "zombie", method=method, generator=generator, **fields))
    assert (config.target, config.seed, config.weights) == ("zombie", 3, (1.0, 0.5))
    assert flat(from_json(to_json(config))) == flat(config)


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_of_a_preset_exists_for_some_method_and_family(name: str) -> None:
    names = {
        one.name
        for method in METHODS
        for family in FAMILIES
        for one in settings(
            AdaptConfig("x", method=method, options=METHODS[method].Options(), sampling=FAMILIES[family].Options())
        )
    }
    assert set(PRESETS[name].settings) <= names
    for method, changes in PRESETS[name].methods.items():
        config = AdaptConfig("x", method=method, options=METHODS[method].Options())
        assert set(changes) <= {one.name for one in settings(config)}


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(ZeroshiftError, match="There is no preset 'fast'"):
        preset("fast", "zombie")


def test_options_belong_to_their_owner() -> None:
    names = {method: set(flat(preset("published", "x", method=method))) for method in METHODS}
    assert "prompts.steps" in names["ipl"]
    assert not any(name.startswith("prompts.") for name in names["nada"])
    assert "variations" in names["svl"]
    styles = set(flat(preset("published", "x", generator="miniature")))
    diffusion = set(flat(preset("diffusion", "x", generator="miniature-diffusion")))
    assert not any(name.startswith("sampling.") for name in styles)
    assert {"sampling.t0", "adapt.lora_rank"} <= diffusion
    assert not {"truncation_psi", "adapt.noise_mode", "adapt.layer_lr"} & diffusion
    assert not {"adapt.lora_rank", "source_images_dir"} & styles


def test_no_method_or_family_has_a_setting_with_the_name_of_a_common_one() -> None:
    common = {spec.name for spec in dataclasses.fields(AdaptConfig)}
    for method in METHODS:
        assert not common & {spec.name for spec in dataclasses.fields(METHODS[method].Options)}


def test_every_unused_setting_exists() -> None:
    names = {one.name for one in settings(AdaptConfig("x"))}
    for owner in (*METHODS.values(), *FAMILIES.values()):
        assert set(owner.unused_settings) <= names


def test_changes_by_dotted_name() -> None:
    config = changed(preset("published", "x"), {"adapt.lr": 0.5, "prompts.steps": 7, "seed": 2})
    assert (config.adapt.lr, config.options.prompts.steps, config.seed) == (0.5, 7, 2)
    other = changed(config, {"method": "svl", "variations": 3})
    assert other.options == SVLOptions(variations=3)
    assert other.adapt.lr == 0.5
    diffusion = changed(AdaptConfig("x", generator="miniature-diffusion"), {"sampling.t0": 0.3})
    assert diffusion.sampling == DDIMOptions(t0=0.3)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("adapt.ema", "It is called 'adapt.ema_decay' now"),
        ("adapt.speed", "There is no setting 'adapt.speed'"),
        ("prompts", "There is no setting 'prompts'"),
        ("variations", "There is no setting 'variations' for 'ipl'"),
        ("sampling.t0", "There is no setting 'sampling.t0'"),
    ],
)
def test_unknown_names_are_refused_and_old_names_give_the_new_one(name: str, sentence: str) -> None:
    with pytest.raises(ZeroshiftError, match=sentence):
        changed(preset("published", "x", generator="miniature"), {name: 1})


def test_presets_and_configurations_take_short_and_nested_names() -> None:
    config = preset("published", "x", steps=20, encoder="ViT-B-16/openai", adapt={"lr": 0.5}, prompts={"steps": 7})
    assert (config.adapt.steps, config.adapt.lr, config.options.prompts.steps) == (20, 0.5, 7)
    assert config.encoders == ("ViT-B-16/openai",)
    other = config.replace(seed=3, layers="all", **{"adapt.ema_decay": 0.5})
    assert (other.seed, other.adapt.layers, other.adapt.ema_decay, other.adapt.lr) == (3, ("all",), 0.5, 0.5)
    assert config.seed == 0
    assert config.replace(adapt=AdaptStage(steps=1)).adapt == AdaptStage(steps=1)
    nada = preset("published", "x", method="nada", steps=20)
    assert (nada.adapt.steps, nada.method) == (20, "nada")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"stepss": 3}, r"There is no setting 'stepss'\. Did you mean .*'steps'"),
        ({"adapt": {"learning_rate": 1.0}}, r"There is no setting 'adapt\.learning_rate'"),
        ({"num_context": 2}, "Did you mean 'prompts.num_context'"),
        ({"adapt": 3}, "There is no setting 'adapt', but a group"),
        ({"method": "nada"}, r"Another method has other settings\. Use zeroshift\.changed"),
        ({"generator": "ffhq"}, "Another generator has other settings"),
        ({"seed": "one"}, "seed"),
    ],
)
def test_invalid_replacements_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ZeroshiftError, match=sentence):
        preset("published", "x", generator="miniature").replace(**changes)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ('{"target": "a", "steps": 3}', "Unknown settings: steps"),
        ('{"target": "a", "adapt": {"stepz": 3}}', "Unknown settings: adapt.stepz"),
        ('{"target": "a", "prompts": {"stepz": 3}}', "Unknown settings: prompts.stepz"),
        ('{"target": "a", "prompts": 3}', "prompts must be a JSON object"),
        ('{"target": "a", "sampling": {"t0": 3}}', "Unknown settings: sampling.t0"),
        ('{"target": "a", "method": "nada", "prompts": {}}', "Unknown settings: prompts"),
        ('{"source": "a"}', "Missing settings: target"),
        ('{"target": "a", "adapt": {"steps": "many"}}', "adapt.steps is 'many'"),
        ('{"target": "a", "encoders": "miniature"}', "a list in which every item is a string"),
        ('{"target": "a", "method": ["ipl"]}', "method"),
    ],
)
def test_invalid_json_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ZeroshiftError, match=sentence):
        from_json(text)


def test_json_settings_may_be_left_out() -> None:
    expected = AdaptConfig("disney", adapt=AdaptStage(layers=("all",)), options=IPLOptions())
    assert from_json(json.dumps({"target": "disney", "adapt": {"layers": ["all"]}})) == expected


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(
    st.builds(
        PromptStage,
        steps=st.integers(1, 999),
        batch_size=st.integers(2, 64),
        lr=st.floats(1e-6, 1.0),
        context_init=TEXT.filter(str.strip),
        base_text=st.sampled_from(["published", "label", "none"]),
    ),
    st.builds(
        AdaptStage,
        lr=st.floats(1e-8, 1.0),
        lr_final=st.none() | st.floats(1e-8, 1.0),
        betas=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
        layers=st.lists(TEXT.filter(lambda name: name not in ("all", "adaptive")), min_size=1).map(tuple),
    ),
    TEXT.filter(lambda label: bool(label.strip()) and label.strip().casefold() != "photo"),
)
def test_configurations_survive_json(prompts: PromptStage, adapt: AdaptStage, target: str) -> None:
    config = resolve(AdaptConfig(target, adapt=adapt, options=IPLOptions(prompts)))
    assert from_json(to_json(config)) == config


# As version 0.1 wrote them: every run had the settings of all methods and families.
VERSION_0_1: dict[str, Any] = {
    "target": "zombie", "source": "photo", "generator": "miniature", "encoders": ["miniature"], "encoder_weights": [],
    "method": "ipl", "target_images": [], "images": "", "latents": 0, "class_index": None, "seed": 5, "device": "auto",
    "precision": "float32", "compile": False, "resize": "antialias", "truncation": 1.0, "preview_every": 50,
    "preview_samples": 8, "checkpoint_every": 100,
    "prompts": {
        "steps": 100, "batch": 16, "lr": 0.05, "num_context": 4, "context_init": "a photo of a", "domain_weight": 1.0,
        "source_weight": 0.0, "base_text": "none",
    },
    "adapt": {
        "steps": 160, "batch": 4, "accumulate": 2, "lr": 0.012, "lr_last": None, "betas": [0.0, 0.99], "ema": 0.97,
        "layers": ["adaptive"], "num_layers": None, "layer_batch": 4, "layer_lr": 0.01, "layer_steps": 1,
        "noise": "const", "views": 4, "directional_weight": 1.0, "directional_form": "cosine", "l1_weight": 0.0,
        "identity_weight": 0.0, "recogniser": "face", "lora": 0,
    },
    "diffusion": {
        "t0": 0.5, "noise_steps": 20, "steps": 6, "invert_steps": 40, "clip": True, "each_step": False,
        "checkpointing": False,
    },
    "options": {},
}  # fmt: skip


def test_configurations_of_version_0_1_are_read() -> None:
    config = from_json(json.dumps(VERSION_0_1))
    assert config.options == IPLOptions(PromptStage(steps=100, batch_size=16, base_text="none"))
    assert (config.family, config.seed, config.truncation_psi) == ("stylegan2", 5, 1.0)
    assert (config.adapt.grad_accumulation_steps, config.adapt.ema_decay, config.adapt.augmentations) == (2, 0.97, 4)
    assert type(config.sampling) is GeneratorOptions


def test_configurations_of_version_0_1_of_other_methods_and_families_are_read() -> None:
    svl = VERSION_0_1 | {"method": "svl", "options": {"variations": 4}}
    assert from_json(json.dumps(svl)).options == SVLOptions(variations=4)
    air = VERSION_0_1 | {"method": "air", "options": {"start": 0.4, "samples": 50, "prompt_steps": 3}}
    options = from_json(json.dumps(air)).options
    assert (options.anchor_start, options.anchor_samples, options.prompt_steps) == (0.4, 50, 3)  # type: ignore[attr-defined]
    diffusion = VERSION_0_1 | {"method": "nada", "generator": "miniature-diffusion", "latents": 4}
    diffusion["diffusion"] = VERSION_0_1["diffusion"] | {"t0": 0.6, "clip": False}
    config = from_json(json.dumps(diffusion))
    assert config.sampling == DDIMOptions(t0=0.6, clip_sample=False)
    assert config.num_latents == 4


def test_new_names_of_version_0_1_are_settings() -> None:
    names = {
        one.name
        for method in METHODS
        for one in settings(AdaptConfig("x", method=method, options=METHODS[method].Options(), sampling=DDIMOptions()))
    }
    assert set(RENAMED.values()) <= names
    assert current_name("diffusion.t0") == "sampling.t0"
    assert current_name("options.variations") == "variations"


def test_defaults_follow_the_generator(tiny_generator: Path) -> None:
    assert default_config("miniature").encoders == ("miniature",)
    assert default_config("miniature-diffusion").sampling == PRESETS_SAMPLING
    fewer = {"solver": "dpm-solver++", "noise_steps": 2, "invert_steps": 8}
    assert default_config("miniature-autoencoder").sampling == dataclasses.replace(PRESETS_SAMPLING, **fewer)
    assert default_config(str(tiny_generator)).encoders == ("ViT-B-32-quickgelu/openai",)
    assert default_config("google/ddpm-cat-256").encoders == ("ViT-B-16-quickgelu/openai",)
    assert default_config("miniature", "published").encoders == ("miniature",)


def test_presets_can_choose_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_config("miniature").method == preset("miniature", "zombie").method == "compass"
    assert default_config("miniature", method="ipl").method == "ipl"
    assert preset("miniature", "zombie", method="ipl").method == "ipl"
    assert default_config("miniature", "published").method == "ipl"  # the method belongs to the preset
    assert default_config("miniature-autoencoder").method == "compass"
    assert default_config("miniature-diffusion").method == "nada"
    assert default_config("ffhq").method == "ipl"
    monkeypatch.setitem(PRESETS._loaded, "child", Preset({}, extends="miniature"))
    monkeypatch.setitem(PRESETS._loaded, "grandchild", Preset({}, extends="child", method="nada"))
    assert preset("child", "zombie").method == "compass"
    assert preset("grandchild", "zombie").method == "nada"


@pytest.mark.parametrize(("name", "parent"), [("standard", "published"), ("diffusion", "published-diffusion")])
def test_default_presets_are_the_published_ones_with_images_in_range(name: str, parent: str) -> None:
    """And those of StyleGANs choose layers less often."""
    choice = {"adapt.layer_every"} if name == "standard" else set()
    for method in METHODS:
        own, published = (flat(preset(each, "x", method=method)) for each in (name, parent))
        differing = {key for key in own if own[key] != published[key]} - set(ENVIRONMENT)
        in_range = set() if method in ("scaffold", "compass") else {"adapt.clamp_images", "adapt.range_weight"}
        assert differing == in_range | choice
        assert own["adapt.clamp_images"]
        assert own["adapt.range_weight"] > 0
        assert all(published.get(key, value) == value for key, value in ENVIRONMENT.items() if name == "standard")
        assert not any(own.get(key, False) == value for key, value in ENVIRONMENT.items())
    assert FAMILIES["stylegan2"].preset == FAMILIES["stylegan3"].preset == "standard"
    assert FAMILIES["diffusion"].preset == "diffusion"


@pytest.mark.parametrize("name", ["miniature", "miniature-autoencoder"])
def test_embedded_presets_keep_images_in_range_with_every_method(name: str) -> None:
    for method in METHODS:
        adapt = preset(name, "x", method=method).adapt
        assert (adapt.clamp_images, adapt.range_weight) == (True, 5.0)


def test_a_preset_extends_another_with_the_methods_settings_for_both() -> None:
    PRESETS.register("mine")(Preset({"adapt.lr": 0.5}, {"air": {"anchor_start": 0.25}}, "published"))
    config = preset("mine", "x", method="air")
    assert (config.adapt.lr, config.adapt.layers, config.options.anchor_start) == (0.5, ("all",), 0.25)
    assert config.encoders == preset("published", "x").encoders


ENVIRONMENT = {"adapt.unchosen_gradient": "zero", "prompts.keep_surplus": True}  # of the published program alone
PRESETS_SAMPLING = DDIMOptions(t0=0.6, noise_steps=8, steps=4, invert_steps=12, clip_sample=False)


def test_every_setting_has_a_docstring() -> None:
    for method in METHODS:
        for family in FAMILIES:
            config = AdaptConfig("x", method=method, options=METHODS[method].Options())
            config = dataclasses.replace(config, sampling=FAMILIES[family].Options())
            for one in settings(config):
                assert one.doc, one.name


def test_every_setting_is_read_somewhere() -> None:
    """Each field is read as an attribute somewhere outside the module that defines it."""
    package = Path(zeroshift.__file__).parent
    read = set()
    for path in package.rglob("*.py"):
        if path == package / "config" / "settings.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = node.value
                name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
                if name in ("config", "settings", "_settings", "prompts", "adapt"):
                    read.add(node.attr)
    properties = {"weights": "encoder_weights", "weighted_texts": "target_texts"}
    read |= {setting for name, setting in properties.items() if name in read}
    for kind in (AdaptConfig, AdaptStage, PromptStage):
        assert {spec.name for spec in dataclasses.fields(kind)} <= read


def test_a_preset_keeps_its_sampling_settings_for_a_generator_object() -> None:
    config = preset("miniature-diffusion", "zombie")
    assert config.family == "", "that of the object"
    assert (config.sampling.t0, config.sampling.steps) == (0.6, 4)  # type: ignore[attr-defined]
    assert type(preset("miniature-diffusion", "zombie", generator="miniature").sampling) is GeneratorOptions
    assert preset("published", "zombie").family == "stylegan2"


def test_another_generator_brings_its_family() -> None:
    config = changed(preset("published", "zombie"), {"generator": "miniature-diffusion", "sampling.steps": 3})
    assert config.family == "diffusion"
    assert config.sampling == DDIMOptions(steps=3)
    again = changed(config, {"generator": "miniature-autoencoder"})
    assert (again.family, again.sampling) == ("diffusion_autoencoder", config.sampling)
    assert type(changed(config, {"generator": "miniature"}).sampling) is GeneratorOptions


def test_sampling_settings_without_a_family_are_read_again() -> None:
    """Of a run with a generator object: its family is not known before it is loaded."""
    config = AdaptConfig("zombie", sampling=DDIMOptions(steps=3))
    assert from_json(to_json(config)).sampling == config.sampling
    with pytest.raises(ZeroshiftError, match=r"sampling.pace"):
        from_json(to_json(config).replace('"t0": 0.5', '"pace": 0.5'))
