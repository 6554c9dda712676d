"""Feature networks with random weights, compared with their origin or a naive twin."""

import json
import pickle
import socket
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from scipy import ndimage

from zeroshift.clip.loading import load_encoder
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.metrics.features import Features
from zeroshift.evaluation.metrics.inception_score import inception_score
from zeroshift.evaluation.metrics.protocols import (
    diversity_all_pairs,
    intra_10_references_50_a_cluster,
    is_10_splits,
    sifid_10_references,
)
from zeroshift.io.images import eight_bit
from zeroshift.networks.base import FeatureNetwork, read_weights
from zeroshift.networks.registry import load_network


def images(n: int = 2, size: int = 32, seed: int = 0) -> torch.Tensor:
    coarse = torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return eight_bit(F.interpolate(coarse, [size, size], mode="bicubic"))


def extract(network: FeatureNetwork, pictures: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network(pictures)


# Inception


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "none.pth")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3("random", ["2048"], str(folder / "none.pth"))
        for parameter in network.parameters():
            parameter.mul_(6**0.5)  # so that activations do not vanish
    torch.save(network.state_dict(), folder / "inception.pth")
    return folder / "inception.pth"


@pytest.mark.slow
def test_inception_equals_torch_fidelitys(inception_file: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    origin = FeatureExtractorInceptionV3("origin", ["2048", "logits_unbiased"], str(inception_file))
    network, pictures = load_network(f"inception:{inception_file}"), images()
    pixels = ((pictures + 1) * 127.5).round().to(torch.uint8)
    features, logits = origin(pixels)
    output = extract(network, pictures)
    assert output.shape == (2, 2048)
    assert torch.allclose(output, features, atol=1e-5)
    assert torch.allclose(network.classify(output), logits, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_early_inception_returns_gaussians_of_locations(inception_file: Path) -> None:
    network, pictures = load_network(f"inception-maps:{inception_file}"), images()
    output = extract(network, pictures)
    assert output.shape == (2, 193, 192)
    inner = network.network
    with torch.inference_mode():
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as enlarge

        x = (enlarge(((pictures + 1) * 127.5).round(), size=(299, 299), align_corners=False) - 128) / 128
        x = inner.MaxPool_1(inner.Conv2d_2b_3x3(inner.Conv2d_2a_3x3(inner.Conv2d_1a_3x3(x))))
        maps = inner.Conv2d_4a_3x3(inner.Conv2d_3b_1x1(x))
    assert maps.shape == (2, 192, 71, 71)
    rows = maps[0].flatten(1).T.double()
    assert torch.allclose(output[0, 0], rows.mean(dim=0), atol=1e-6)
    assert torch.allclose(output[0, 1:].T @ output[0, 1:], torch.cov(rows.T), atol=1e-6)


@pytest.mark.slow
def test_sifid_is_the_naive_one(inception_file: Path) -> None:
    network, pictures, references = load_network(f"inception-maps:{inception_file}"), images(2), images(2, seed=1)
    maps: list[torch.Tensor] = []
    handle = network.network.Conv2d_4a_3x3.register_forward_hook(lambda module, inputs, output: maps.append(output))
    features = Features(
        network, ("photo", "zombie"), 0, extract(network, pictures), reference=extract(network, references)
    )
    handle.remove()
    value = sifid_10_references(features)
    rows = [[each.flatten(1).T.double().numpy() for each in batch] for batch in maps]
    naive = []
    for x in rows[0]:
        for y in rows[1]:
            a, b = np.cov(x.T), np.cov(y.T)
            levels, axes = np.linalg.eigh(a)
            root = axes * np.sqrt(levels.clip(0)) @ axes.T  # (A B)^½ has the trace of (A^½ B A^½)^½
            common = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(0)).sum()
            naive.append(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b) - 2 * common)
    assert value == pytest.approx(np.mean(naive), rel=1e-3)
    assert value > 0


def test_inception_score_is_computed_from_the_logits_without_bias(inception_file: Path) -> None:
    network, features = load_network(f"inception:{inception_file}"), torch.randn(10, 2048)
    with torch.inference_mode():
        p = torch.softmax(features @ network.network.fc.weight.T, dim=1).double()
    value, spread = is_10_splits(Features(network, ("photo", "zombie"), 0, features))
    assert value == pytest.approx(1), "a split of one image has score 1"
    assert spread == pytest.approx(0, abs=1e-9)
    divergence = (p * (p / p.mean(dim=0)).log()).sum(dim=1).mean()
    assert inception_score(network.classify(features), splits=1)[0] == pytest.approx(float(divergence.exp()), rel=1e-5)


# LPIPS


@pytest.fixture(scope="module")
def lpips_origin() -> torch.nn.Module:
    import warnings

    import lpips

    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # it builds torchvision's VGG by a deprecated option
        torch.manual_seed(0)
        return lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)


@pytest.fixture
def vgg_file(lpips_origin: torch.nn.Module, tmp_path: Path) -> Path:
    state = {}
    for name, value in lpips_origin.net.state_dict().items():  # "slice1.0.weight" -> torchvision's "features.0.weight"
        state[f"features.{name.split('.', 1)[1]}"] = value
    torch.save(state, tmp_path / "vgg.pth")
    return tmp_path / "vgg.pth"


@pytest.mark.slow
def test_lpips_equals_the_authors_implementation(lpips_origin: torch.nn.Module, vgg_file: Path) -> None:
    network = load_network(f"lpips:{vgg_file}")
    a, b = images(2, 48), images(2, 48, seed=1)
    with torch.inference_mode():
        expected = lpips_origin(a, b).flatten()
        output = (network.embed(network(a)) - network.embed(network(b))).square().sum(dim=1)
    assert torch.allclose(output, expected, rtol=1e-3)
    assert output.min() > 0
    assert extract(network, images(1, 512)).shape == (1, 3, 256, 256)


@pytest.mark.slow
def test_lpips_diversity_is_the_naive_one(lpips_origin: torch.nn.Module, vgg_file: Path) -> None:
    network, pictures, references = load_network(f"lpips:{vgg_file}"), images(9, 32), images(2, 32, seed=1)
    with torch.inference_mode():
        between = torch.stack([lpips_origin(one[None], pictures).flatten() for one in pictures])
        nearest = torch.stack([lpips_origin(one[None], pictures).flatten() for one in references]).argmin(dim=0)
    features = Features(
        network, ("photo", "zombie"), 0, extract(network, pictures), reference=extract(network, references)
    )
    value = diversity_all_pairs(features)
    assert value == pytest.approx(float(between.sum() / (9 * 8)), rel=1e-3)
    clusters = [between[nearest == k][:, nearest == k] for k in range(2)]
    within = [float(each.sum() / (len(each) * (len(each) - 1))) for each in clusters if len(each) > 1]
    value = intra_10_references_50_a_cluster(features)
    assert value == pytest.approx(sum(within) / len(within), rel=1e-3)


# Edges


def hed_state() -> dict[str, torch.Tensor]:
    """Random weights under the names of pytorch-hed's file."""
    random, state = torch.Generator().manual_seed(0), {}

    def conv(name: str, inputs: int, outputs: int, size: int) -> None:
        scale = (2 / (inputs * size * size)) ** 0.5
        state[f"{name}.weight"] = torch.randn(outputs, inputs, size, size, generator=random) * scale
        state[f"{name}.bias"] = torch.randn(outputs, generator=random) * 0.1

    widths = [3, 64, 128, 256, 512, 512]
    for index, (number, places) in enumerate(
        zip(("One", "Two", "Thr", "Fou", "Fiv"), ((0, 2), (1, 3), (1, 3, 5), (1, 3, 5), (1, 3, 5)), strict=True)
    ):
        for i, place in enumerate(places):
            conv(f"moduleVgg{number}.{place}", widths[index + (i > 0)], widths[index + 1], 3)
        conv(f"moduleScore{number}", widths[index + 1], 1, 1)
        state[f"moduleScore{number}.weight"] *= 0.01
    conv("moduleCombine.0", 5, 1, 1)
    return state


def test_hed_equals_its_naive_twin(tmp_path: Path) -> None:
    state, pictures = hed_state(), images(2, 32)
    torch.save(state, tmp_path / "hed.pytorch")
    x = (pictures[:, [2, 1, 0]] + 1) / 2 * 255 - torch.tensor([104.00698793, 116.66876762, 122.67891434]).view(3, 1, 1)
    sides = []
    for number, places in (
        ("One", (0, 2)),
        ("Two", (1, 3)),
        ("Thr", (1, 3, 5)),
        ("Fou", (1, 3, 5)),
        ("Fiv", (1, 3, 5)),
    ):
        x = x if number == "One" else F.max_pool2d(x, 2)
        for place in places:
            name = f"moduleVgg{number}.{place}"
            x = F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
        side = F.conv2d(x, state[f"moduleScore{number}.weight"], state[f"moduleScore{number}.bias"])
        sides.append(F.interpolate(side, (32, 32), mode="bilinear", align_corners=False))
    fused = F.conv2d(torch.cat(sides, 1), state["moduleCombine.0.weight"], state["moduleCombine.0.bias"])
    expected = torch.sigmoid(fused)[:, 0]
    assert expected.std() > 0.01
    assert torch.allclose(extract(load_network(f"hed:{tmp_path / 'hed.pytorch'}"), pictures), expected, atol=1e-4)
    renamed = {name.replace("module", "net"): value for name, value in state.items()}
    save_file(renamed, tmp_path / "hed.safetensors")
    assert torch.allclose(extract(load_network(f"hed:{tmp_path / 'hed.safetensors'}"), pictures), expected, atol=1e-4)


def test_sobel_equals_scipys() -> None:
    pictures = images(1, 64)
    luminance = np.tensordot([0.299, 0.587, 0.114], pictures[0].double().numpy(), axes=1)
    blurred = ndimage.gaussian_filter(luminance, 0.5, radius=2)
    length = np.hypot(ndimage.sobel(blurred, 0), ndimage.sobel(blurred, 1))
    output = extract(load_network("sobel"), pictures)[0].numpy()
    inside = (slice(4, -4), slice(4, -4))  # the borders are padded in another way
    assert np.corrcoef(output[inside].ravel(), length[inside].ravel())[0, 1] > 0.99999
    assert output.max() == pytest.approx(1)
    assert output.min() >= 0
    assert extract(load_network("sobel"), images(1, 512)).shape == (1, 256, 256)
    assert not extract(load_network("sobel"), torch.zeros(1, 3, 32, 32)).any(), "no edge in a plain picture"


# Transformers


@pytest.mark.slow
def test_dinov2_reads_metas_layout(tmp_path: Path) -> None:
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        origin = timm.create_model("vit_small_patch14_dinov2", img_size=518, num_classes=0).eval()
    state = {**origin.state_dict(), "mask_token": torch.zeros(1, 384)}
    ramp = torch.arange(37.0).expand(37, 37).flatten()[None, :, None]  # grows from left to right
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], ramp.expand(1, -1, 384)], dim=1)
    torch.save(state, tmp_path / "dinov2.pth")
    network = load_network(f"dinov2:{tmp_path / 'dinov2.pth'}")
    positions = network.network.pos_embed
    assert positions.shape == (1, 257, 384)
    assert torch.equal(positions[:, 0], state["pos_embed"][:, 0])
    # Meta's program enlarges by 16.1 / 37, so place i shows what is at (i + 0.5) * 37 / 16.1 - 0.5, not 37 / 16;
    # PyTorch's cubic is some hundredths off a straight line
    row, places = positions[0, 1:, 0].view(16, 16)[3, 1:-1], torch.arange(1, 15) + 0.5
    assert torch.allclose(row, places * 37 / 16.1 - 0.5, atol=0.06)
    assert not torch.allclose(row, places * 37 / 16 - 0.5, atol=0.2)
    output = extract(network, images(1, 64))
    assert output.shape == (1, 384)
    assert output.isfinite().all()


@pytest.mark.slow
def test_dinov2_preprocessing_equals_that_of_its_authors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """224 pixels by Pillow's bicubic, clipped to the pixel range, normalized by ImageNet's mean and deviation."""
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(timm.create_model("vit_small_patch14_dinov2", img_size=518).state_dict(), tmp_path / "dinov2.pth")
    network, shown = load_network(f"dinov2:{tmp_path / 'dinov2.pth'}"), []
    monkeypatch.setattr(
        network.network, "forward", lambda pictures: shown.append(pictures) or torch.zeros(len(pictures), 384)
    )
    # Stripes of extreme values: Pillow clips overshoots after each of its two passes; here only one pass matters.
    hard = ((torch.rand(1, 3, 1, 32, generator=torch.Generator().manual_seed(0)) > 0.5) * 2.0 - 1).expand(1, 3, 32, 32)
    extract(network, hard)
    pixels = Image.fromarray(((hard[0].permute(1, 2, 0) + 1) * 127.5).to(torch.uint8).numpy())
    resized = np.asarray(pixels.resize((224, 224), Image.Resampling.BICUBIC)) / 255
    expected = (resized - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.abs(shown[0][0].permute(1, 2, 0).numpy() - expected).max() < 0.03, "half a level of 255, over 0.22"


def test_face_recognizer_loads_from_a_folder(tmp_path: Path) -> None:
    import timm

    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 20,
        "pretrained_cfg": {"input_size": [3, 32, 32], "fixed_input_size": True, "mean": [0.5] * 3, "std": [0.5] * 3},
        "model_args": {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2},
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        origin = timm.create_model("vit_tiny_patch16_224", num_classes=20, img_size=32, **config["model_args"]).eval()
    save_file(origin.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    network, pictures = load_network(f"face:{tmp_path}"), images(2, 256)
    with torch.inference_mode():
        crop = pictures[:, :, 35:223, 32:220]
        expected = origin(F.interpolate(crop, [32, 32], mode="bicubic", antialias=True))
    assert torch.allclose(extract(network, pictures), expected, atol=1e-4)
    with pytest.raises(ZeroshiftError, match=r"no folder of a face recognizer: expected config\.json and model"):
        load_network(f"face:{tmp_path / 'nowhere'}")


def test_encoders_are_feature_networks_and_are_loaded_once(tiny_encoder: Path) -> None:
    from zeroshift.miniature.networks.encoders import load_evaluator

    pictures = images(2, 16)
    with torch.no_grad():
        expected = load_encoder(str(tiny_encoder)).encode_image(pictures)
    assert torch.allclose(extract(load_network(f"open_clip:{tiny_encoder}"), pictures), expected, atol=1e-5)
    judge = load_network("miniature-judge")
    with torch.no_grad():
        assert torch.allclose(extract(judge, images(1, 64)), load_evaluator().encode_image(images(1, 64)), atol=1e-5)
    assert judge is load_network("miniature-judge"), "loaded once"


# Errors


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["inception", "inception-maps", "dinov2", "lpips", "hed"])
def test_without_a_connection_the_error_states_where_to_place_the_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path))
    monkeypatch.setattr("zeroshift.io.downloads._open", unreachable)
    with pytest.raises(
        ZeroshiftError, match=rf"cannot be reached .* place the file at {tmp_path}/features/\S+\.p"
    ) as raised:
        load_network(name)
    assert "http" in str(raised.value)


def test_face_recognizer_without_a_connection_gives_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeroshift.io.hub.unreachable", lambda address: "no route")
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    with pytest.raises(ZeroshiftError, match=r"put config\.json and model\.safetensors into a folder"):
        load_network("face")


def test_unsuitable_files_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("inception", "dinov2", "lpips", "hed"):
        with pytest.raises(ZeroshiftError, match=r"do not fit the network|holds weights of another model"):
            load_network(f"{name}:{tmp_path / 'other.pth'}")
    for name in ("text.pth", "text.safetensors"):
        with pytest.raises(ZeroshiftError, match=r"cannot be read as a weights file|not a complete safetensors file"):
            read_weights(tmp_path / name)
    with pytest.raises(ZeroshiftError, match="no weights file"):
        read_weights(tmp_path / "nothing.pth")
    with pytest.raises(ZeroshiftError, match="no feature network 'resnet'"):
        load_network("resnet")


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    torch.save(_Touch(tmp_path / "touched"), tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(_Touch(tmp_path / "touched"), protocol=2))
    for name in ("inception", "dinov2", "lpips", "hed"):
        for file in ("evil.pth", "evil.pkl"):
            with pytest.raises(ZeroshiftError, match=r"cannot be read|executed"):
                load_network(f"{name}:{tmp_path / file}")
    assert not (tmp_path / "touched").exists()


FACE: dict[str, Any] = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 20,
    "pretrained_cfg": {"input_size": [3, 32, 32], "fixed_input_size": True, "mean": [0.5] * 3, "std": [0.5] * 3},
    "model_args": {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2},
}


@pytest.fixture(scope="module")
def face_state() -> dict[str, torch.Tensor]:
    import timm

    return timm.create_model("vit_tiny_patch16_224", num_classes=20, img_size=32, **FACE["model_args"]).state_dict()


def _connection(*_: object, **__: object) -> None:
    pytest.fail("a local file led to a connection", pytrace=True)


def test_a_face_configuration_does_not_reach_elsewhere(
    tmp_path: Path, face_state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The addresses, names and paths of a config.json are not followed."""
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, _connection)
    monkeypatch.setattr(socket.socket, "connect", _connection)
    elsewhere = {"url": "http://127.0.0.1:9/weights.pth", "hf_hub_id": "somebody/model", "file": "/etc/passwd"}
    config = {**FACE, "pretrained_cfg": {**FACE["pretrained_cfg"], **elsewhere, "source": "url"}, "pretrained": True}
    save_file(face_state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert extract(load_network(f"face:{tmp_path}"), images(1, 64)).shape == (1, 20)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architecture": "hf-hub:somebody/model"}, "architecture is 'hf-hub"),
        ({"architecture": "local-dir:/tmp"}, "architecture is 'local-dir"),
        ({"architecture": "no_such_model"}, r"'no_such_model'. Known ones are timm's models in convnext, .*resnet"),
        ({"model_args": {**FACE["model_args"], "embed_dim": 32}}, "holds weights of another model"),
        ({"num_classes": 10**12}, "num_classes"),
        ({"num_classes": None}, "num_classes"),
        ({"pretrained_cfg": {}}, r"pretrained_cfg\.input_size is missing"),
        ({"pretrained_cfg": {**FACE["pretrained_cfg"], "std": [0, 1, 1]}}, r"pretrained_cfg\.std\[0\]"),
        ({"pretrained_cfg": {**FACE["pretrained_cfg"], "input_size": [3, 10**6, 10**6]}}, "input_size"),
        ({"model_args": {**FACE["model_args"], "depth": 10**9}}, r"model_args\.depth"),
        ({"model_args": {**FACE["model_args"], "checkpoint_path": "/tmp/x"}}, r"model_args\.checkpoint_path"),
        ({"model_args": {**FACE["model_args"], "pretrained": True}}, r"model_args\.pretrained"),
        ({"model_args": {**FACE["model_args"], "num_heads": 3}}, "do not fit the network"),
    ],
)
def test_face_configurations_that_cannot_be_used_are_refused(
    changes: dict[str, Any], sentence: str, tmp_path: Path, face_state: dict[str, torch.Tensor]
) -> None:
    save_file(face_state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**FACE, **changes}))
    with pytest.raises(ZeroshiftError, match=sentence):
        load_network(f"face:{tmp_path}")


def test_weights_with_nan_and_absurd_claims_are_refused(tmp_path: Path, face_state: dict[str, torch.Tensor]) -> None:
    state = {**face_state, "norm.weight": torch.full_like(face_state["norm.weight"], torch.nan)}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(FACE))
    with pytest.raises(ZeroshiftError, match=r"not finite numbers, in norm\.weight"):
        load_network(f"face:{tmp_path}")
    torch.save({"cls_token": torch.zeros(1).expand(1, 1, 10**9)}, tmp_path / "wide.pth")
    with pytest.raises(ZeroshiftError, match="damaged or in another format"):
        load_network(f"dinov2:{tmp_path / 'wide.pth'}")
    torch.save({"cls_token": torch.zeros(1, 1, 1536), "pos_embed": torch.zeros(1, 5, 1536)}, tmp_path / "giant.pth")
    with pytest.raises(ZeroshiftError, match="The file for DINOv2 holds weights of another model"):
        load_network(f"dinov2:{tmp_path / 'giant.pth'}")
