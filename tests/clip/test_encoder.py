import json
import warnings
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from zeroshift.clip.encoder import Encoder, published_templates
from zeroshift.clip.loading import ENCODERS, load_encoder, load_encoder_file
from zeroshift.errors import ZeroshiftError

VISION = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
END = 49407


class SentencePieces:
    """Tokens like SigLIP's: no start token, end token 1, padding 1."""

    def __call__(self, texts: list[str], context_length: int = 20) -> Tensor:
        rows = [[2 + sum(word.encode()) % 40000 for word in text.split()][: context_length - 1] for text in texts]
        return torch.tensor([row + [1] * (context_length - len(row)) for row in rows])


def build(kind: str) -> Encoder:
    torch.manual_seed(0)
    tokenizer: Any = open_clip.SimpleTokenizer(context_length=20)
    if kind == "flat":
        model: Any = open_clip.CLIP(8, VISION, TEXT)
    elif kind == "custom":
        model = open_clip.CustomTextCLIP(8, VISION, {**TEXT, "proj_bias": True})
    elif kind == "eos":
        model = open_clip.CustomTextCLIP(8, VISION, {**TEXT, "pool_type": "eos", "eos_id": END})
    elif kind == "siglip":
        model = open_clip.CustomTextCLIP(8, VISION, {**TEXT, "pool_type": "last", "no_causal_mask": True})
        tokenizer = SentencePieces()
    elif kind == "coca-text":
        model = open_clip.CustomTextCLIP(8, VISION, {**TEXT, "embed_cls": True})
    model.eval()
    return Encoder(model, tokenizer, image_mean=(0.4, 0.5, 0.6), image_std=(0.2, 0.3, 0.4))


KINDS = ("flat", "custom", "eos", "siglip", "coca-text")


@pytest.fixture(scope="module", params=KINDS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return build(request.param)


def naive_prompt(encoder: Encoder, context: Tensor, suffix: str) -> Tensor:
    """One prompt at full length by the model's own code, with the embeddings of placeholder words replaced."""
    model, start = encoder.model, 0 if isinstance(encoder._tokenizer, SentencePieces) else 1
    tower = getattr(model, "text", model)
    ids = encoder._tokenizer([" ".join(["the"] * len(context)) + " " + suffix])

    def replace(module: Any, inputs: Any, output: Tensor) -> Tensor:
        return torch.cat([output[:, :start], context[None], output[:, start + len(context) :]], dim=1)

    handle = tower.token_embedding.register_forward_hook(replace)
    try:
        return model.encode_text(ids)[0]
    finally:
        handle.remove()


def test_text_features_equal_open_clips(encoder: Encoder) -> None:
    texts = ["photo", "a pencil sketch of a very old zombie", ""]
    with torch.no_grad():
        expected = encoder.model.encode_text(encoder._tokenizer(texts))
    torch.testing.assert_close(encoder.encode_text(texts), expected)


def test_prompts_equal_their_full_length_twin(encoder: Encoder) -> None:
    context = torch.randn(3, 4, encoder.width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    suffixes = ["photo", "ukiyo-e painting", "zombie"]
    twin = torch.stack([naive_prompt(encoder, row, suffix) for row, suffix in zip(context, suffixes, strict=True)])
    ours = encoder.encode_prompts(context, suffixes)
    torch.testing.assert_close(ours, twin)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((features * weight).sum(), context)[0] for features in (ours, twin)]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(encoder.encode_prompts(context, "zombie")[2], ours[2])


@pytest.mark.slow
def test_compiled_prompts_are_one_graph_and_equal(tiny_encoder: Path) -> None:
    """`fullgraph` raises at a graph break; aot_eager traces the backward pass as well."""
    torch.compiler.reset()
    plain, compiled = load_encoder(str(tiny_encoder)), load_encoder(str(tiny_encoder))
    compiled.compile_towers(fullgraph=True, backend="aot_eager")
    for label in ("dog", "pencil sketch of a dog"):
        context = torch.randn(2, 3, plain.width, generator=torch.Generator().manual_seed(0)).requires_grad_()
        features = [encoder.encode_prompts(context, label) for encoder in (plain, compiled)]
        gradients = [torch.autograd.grad(each.square().sum(), context)[0] for each in features]
        torch.testing.assert_close(*features)
        torch.testing.assert_close(*gradients)
        torch.testing.assert_close(plain.encode_text([label]), compiled.encode_text([label]))
    torch.compiler.reset()


def test_prompts_of_word_embeddings_equal_texts(encoder: Encoder) -> None:
    words = encoder.embed_words("a photo of a")
    assert words.shape == (4, encoder.width)
    torch.testing.assert_close(
        encoder.encode_prompts(words[None], "disney"), encoder.encode_text(["a photo of a disney"])
    )


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_surplus_tokens_of_replaced_words_stay_before_the_suffix(encoder: Encoder, count: int) -> None:
    """The words have six tokens in CLIP's vocabulary, so that four vectors leave two of them."""
    words = encoder.embed_words("an oil-painting of a")
    assert len(words) >= 4
    context = torch.randn(2, count, encoder.width)
    surplus = words[count:].expand(2, -1, -1)
    torch.testing.assert_close(
        encoder.encode_prompts(context, ["photo", "very old zombie"], "an oil-painting of a"),
        encoder.encode_prompts(torch.cat([context, surplus], dim=1), ["photo", "very old zombie"]),
    )


def test_causal_towers_run_up_to_the_end_token_only() -> None:
    encoder, lengths = build("flat"), []
    encoder.model.transformer.register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[0].shape[1]))
    encoder.encode_prompts(torch.zeros(2, 4, encoder.width), ["photo", "zombie"])
    assert lengths == [7]  # start, four vectors, one word, end


def test_images_of_the_right_size_are_only_normalized(encoder: Encoder) -> None:
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    mean, std = torch.tensor(encoder.image_mean), torch.tensor(encoder.image_std)
    normal = ((images + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(encoder.encode_image(images), encoder.model.encode_image(normal))


@pytest.mark.parametrize(("resize", "antialias"), [("antialias", True), ("published", False)])
@pytest.mark.parametrize("size", [(48, 48), (30, 44), (8, 8)])
def test_images_of_other_sizes_are_resized_and_cropped(resize: str, antialias: bool, size: tuple[int, int]) -> None:
    encoder = build("flat")
    encoder = Encoder(encoder.model, encoder._tokenizer, image_mean=(0.5,) * 3, image_std=(0.5,) * 3, resize=resize)
    images = (torch.rand(2, 3, *size) * 2 - 1).requires_grad_()
    short = min(size)
    to = [16 * side // short for side in size]
    small = F.interpolate(images, to, mode="bicubic", antialias=antialias)
    top, left = (round((side - 16) / 2) for side in to)
    twin = encoder.model.encode_image(small[:, :, top : top + 16, left : left + 16])
    ours = encoder.encode_image(images)
    torch.testing.assert_close(ours, twin)
    torch.testing.assert_close(*(torch.autograd.grad(features.sum(), images)[0] for features in (ours, twin)))


@pytest.mark.parametrize("size", [(48, 48), (30, 44), (90, 24), (32, 24)])
def test_images_for_a_rectangular_encoder_cover_it_and_are_cropped(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = open_clip.CLIP(8, {**VISION, "image_size": [32, 24]}, TEXT).eval()
    tokenizer = open_clip.SimpleTokenizer(context_length=20)
    encoder = Encoder(model, tokenizer, image_mean=(0.5,) * 3, image_std=(0.5,) * 3)
    assert encoder.image_size == (32, 24)
    images = torch.rand(1, 3, *size) * 2 - 1
    scale = max(32 / size[0], 24 / size[1])
    to = [max(32, int(size[0] * scale)), max(24, int(size[1] * scale))]
    small = F.interpolate(images, to, mode="bicubic", antialias=True)
    top, left = round((to[0] - 32) / 2), round((to[1] - 24) / 2)
    twin = model.encode_image(small[:, :, top : top + 32, left : left + 24])
    torch.testing.assert_close(encoder.encode_image(images), twin)


@pytest.mark.parametrize("text", ["a photo of {x}", "a photo of {", "a photo", "{} and {}", "{{}}", "{" * 500, ""])
def test_templates_without_a_single_place_for_the_label_are_refused(text: str) -> None:
    encoder = build("flat")
    values: Any = {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3}
    with pytest.raises(ZeroshiftError, match=r"The template .* (must have \{\} once|characters)"):
        Encoder(encoder.model, encoder._tokenizer, templates=["a {}", text], **values)
    with pytest.raises(ZeroshiftError, match="needs 1 to"):
        Encoder(encoder.model, encoder._tokenizer, templates=[], **values)


@pytest.mark.parametrize("std", [(0.5, 0.5), (0.5, 0.5, 0.0), (0.5, 0.5, float("nan")), (0.5, 0.5, -1.0)])
def test_deviations_that_cannot_divide_are_refused(std: tuple[float, ...]) -> None:
    encoder = build("flat")
    with pytest.raises(ZeroshiftError, match="Images cannot be normalized"):
        Encoder(encoder.model, encoder._tokenizer, image_mean=(0.5,) * 3, image_std=std)


def test_braces_in_a_label_are_text() -> None:
    encoder = build("flat")
    assert torch.isfinite(encoder.label_feature("{x} dog {")).all()


def test_the_encoder_is_frozen(encoder: Encoder) -> None:
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_label_features_are_means_over_templates() -> None:
    encoder = build("flat")
    assert len(encoder.templates) == len(published_templates()) == 79
    assert "a photo of many {}." not in published_templates()
    features = torch.stack(
        [F.normalize(encoder.encode_text([t.format("dog")])[0], dim=0) for t in published_templates()]
    )
    torch.testing.assert_close(encoder.label_feature("dog"), features.mean(dim=0))


def test_texts_that_are_too_long_are_refused(encoder: Encoder) -> None:
    with pytest.raises(ZeroshiftError, match="longer than the encoder's 20 tokens"):
        encoder.encode_text(["word " * 30])
    with pytest.raises(ZeroshiftError, match="longer than the encoder's 20 tokens"):
        encoder.encode_text(["word " * 3000])
    encoder.encode_text(["word " * 15])
    with pytest.raises(ZeroshiftError, match="4 context vectors are longer than the encoder's 20 tokens"):
        encoder.encode_prompts(torch.zeros(1, 4, encoder.width), "word " * 17)
    encoder.encode_prompts(torch.zeros(1, 4, encoder.width), "word " * 14)


def test_a_self_contained_file_is_loaded(tiny_encoder: Path) -> None:
    encoder = load_encoder(str(tiny_encoder))
    assert encoder.templates == ("a photo of a {}", "a picture showing the {}")
    assert (encoder.embed_dim, encoder.width, encoder.image_size, encoder.context_length) == (24, 32, (16, 16), 24)
    assert encoder.logit_scale == pytest.approx(1 / 0.07, rel=1e-4)
    weights = load_file(tiny_encoder)
    assert torch.equal(encoder.model.text_projection, weights["text_projection"])


def test_unknown_words_cause_a_warning(tiny_encoder: Path) -> None:
    encoder = load_encoder(str(tiny_encoder))
    with pytest.warns(
        UserWarning, match="not trained on the word 'skech', so .* may be meaningless.*Similar labels.*: .*sketch"
    ):
        encoder.warn_unknown("skech of a zombie")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.warn_unknown("Zombie")
        build("flat").warn_unknown("anything")


def test_a_model_of_open_clip_is_loaded_from_a_local_file(tmp_path: Path) -> None:
    name = "zeroshift-test-quickgelu"
    (tmp_path / f"{name}.json").write_text(
        json.dumps({"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": True})
    )
    open_clip.add_model_config(tmp_path / f"{name}.json")
    torch.manual_seed(0)
    model = open_clip.CLIP(8, VISION, TEXT, quick_gelu=True)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    encoder = load_encoder(f"{name}/{tmp_path}/weights.pt", resize="published")
    assert encoder.context_length == 20
    assert encoder.image_mean == list(open_clip.OPENAI_DATASET_MEAN)
    model.eval()
    expected = model.encode_text(open_clip.SimpleTokenizer(context_length=20)(["a dog"]))
    torch.testing.assert_close(encoder.encode_text(["a dog"]), expected.detach())
    (tmp_path / "bad.pt").write_bytes(b"no weights")
    with pytest.raises(ZeroshiftError, match="cannot be read as a weights file"):
        load_encoder(f"{name}/{tmp_path}/bad.pt")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ViT-B-33/openai", "Did you mean .*ViT-B-32"),
        ("ViT-B-32", "There are no weights '' for ViT-B-32"),
        ("ViT-B-32/nobody", "There are no weights 'nobody' for ViT-B-32.*one of: openai"),
        ("somewhere/encoder.safetensors", "There is no weights file"),
    ],
)
def test_unknown_names_are_refused_with_a_hint(name: str, sentence: str) -> None:
    with pytest.raises(ZeroshiftError, match=sentence):
        load_encoder(name)


def test_files_without_an_encoder_are_refused(tmp_path: Path, tiny_encoder: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ZeroshiftError, match="does not say which model it holds"):
        load_encoder(str(tmp_path / "foreign.safetensors"))
    (tmp_path / "short.safetensors").write_bytes(tiny_encoder.read_bytes()[:-10])
    with pytest.raises(ZeroshiftError, match="not a complete safetensors file"):
        load_encoder(str(tmp_path / "short.safetensors"))
    metadata = {
        "open_clip_config": json.dumps({"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT}),
        "image_mean": "[0.5, 0.5, 0.5]",
        "image_std": "[0.5, 0.5, 0.5]",
    }
    save_file({"a": torch.zeros(1)}, tmp_path / "wrong.safetensors", metadata=metadata)
    with pytest.raises(ZeroshiftError, match=r"holds weights of another model: .* missing"):
        load_encoder(str(tmp_path / "wrong.safetensors"))


def test_a_registered_encoder_is_loaded_by_name(tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENCODERS, "_loaded", dict(ENCODERS._loaded))
    modes: list[str] = []

    @ENCODERS.register("mine")
    def load(resize: str) -> Encoder:
        modes.append(resize)
        return load_encoder_file(tiny_encoder, resize)

    assert load_encoder("mine", resize="published").embed_dim == 24
    assert modes == ["published"]
    assert "miniature" in ENCODERS
    with pytest.raises(ZeroshiftError, match="Did you mean miniature"):
        load_encoder("miniture")
