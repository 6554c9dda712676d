"""Published diffusion autoencoders: names and shapes, comparison with a reference network, safe reading."""

import os
import sys
import types
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.diffae import convert
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.diffusion.autoencoder_network import ConditionalUNet, SemanticEncoder

SMALL = {
    "width": 32, "multiples": (1, 2), "encoder": (1, 2, 2), "attention": (8,),
    "resolution": 16, "z_dim": 24, "embed": 40,
}  # fmt: skip
FFHQ256 = {
    "width": 128, "multiples": (1, 1, 2, 2, 4, 4), "encoder": (1, 1, 2, 2, 4, 4, 4), "attention": (16,),
    "resolution": 256, "z_dim": 512, "embed": 512,
}  # fmt: skip


class Layout:
    """Names and shapes of the published networks (such as ffhq256_autoenc), derived from their program."""

    def __init__(self, width, multiples, encoder, attention, resolution, z_dim, embed):
        self.shapes, self.embed, self.z_dim, self.attends = {}, embed, z_dim, attention
        self.linear("time_embed.time_embed.0", width, embed)
        self.linear("time_embed.time_embed.2", embed, embed)
        pending, channels, size = self.half("", width, multiples, resolution, True)
        number = 0
        for level in reversed(range(len(multiples))):
            for index in range(3):
                out = width * multiples[level]
                self.block(f"output_blocks.{number}.0", channels + pending[level].pop(), out, True)
                part = 1
                if size in attention:
                    self.attention(f"output_blocks.{number}.1", out)
                    part = 2
                if level and index == 2:
                    size *= 2
                    self.block(f"output_blocks.{number}.{part}", out, out, True)
                channels, number = out, number + 1
        self.norm("out.0", channels)
        self.conv("out.2", width, 3, 3)
        _, channels, _ = self.half("encoder.", width, encoder, resolution, False)
        self.norm("encoder.out.0", channels)
        self.conv("encoder.out.3", channels, z_dim, 1)

    def half(self, prefix, width, multiples, size, conditional):
        channels = width * multiples[0]
        self.conv(f"{prefix}input_blocks.0.0", 3, channels, 3)
        skips, number = [[] for _ in multiples], 1
        skips[0].append(channels)
        for level, multiple in enumerate(multiples):
            for _ in range(2):
                self.block(f"{prefix}input_blocks.{number}.0", channels, width * multiple, conditional)
                channels = width * multiple
                if size in self.attends:
                    self.attention(f"{prefix}input_blocks.{number}.1", channels)
                skips[level].append(channels)
                number += 1
            if level < len(multiples) - 1:
                size //= 2
                self.block(f"{prefix}input_blocks.{number}.0", channels, channels, conditional)
                skips[level + 1].append(channels)
                number += 1
        self.block(f"{prefix}middle_block.0", channels, channels, conditional)
        self.attention(f"{prefix}middle_block.1", channels)
        self.block(f"{prefix}middle_block.2", channels, channels, conditional)
        return skips, channels, size

    def block(self, name, inputs, outputs, conditional):
        self.norm(f"{name}.in_layers.0", inputs)
        self.conv(f"{name}.in_layers.2", inputs, outputs, 3)
        if conditional:
            self.linear(f"{name}.emb_layers.1", self.embed, 2 * outputs)
            self.linear(f"{name}.cond_emb_layers.1", self.z_dim, outputs)
            self.norm(f"{name}.out_layers.0", outputs)
            self.conv(f"{name}.out_layers.3", outputs, outputs, 3)
        if inputs != outputs:
            self.conv(f"{name}.skip_connection", inputs, outputs, 1)

    def attention(self, name, channels):
        self.norm(f"{name}.norm", channels)
        for part, width in (("qkv", 3 * channels), ("proj_out", channels)):
            self.shapes |= {f"{name}.{part}.weight": (width, channels, 1), f"{name}.{part}.bias": (width,)}

    def conv(self, name, inputs, outputs, size):
        self.shapes |= {f"{name}.weight": (outputs, inputs, size, size), f"{name}.bias": (outputs,)}

    def linear(self, name, inputs, outputs):
        self.shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    def norm(self, name, channels):
        self.shapes |= {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}

    def random(self):
        random = torch.Generator().manual_seed(0)

        def draw(shape):
            scale = 1.0 if len(shape) == 1 else 1.5 / np.sqrt(np.prod(shape[1:]))
            return scale * torch.randn(shape, generator=random)

        return {name: draw(shape) for name, shape in self.shapes.items()}


class Reference:
    """The published network, computed operation by operation from its own names, for a batch of one."""

    def __init__(self, weights):
        self.weights = weights

    def pair(self, name):
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def normed(self, name, x):
        weight, bias = self.pair(name)
        groups = x.reshape(32, -1)
        flat = (groups - groups.mean(1, keepdim=True)) / (groups.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return flat.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]

    def conv(self, name, x):
        weight, bias = self.pair(name)
        return F.conv2d(x[None], weight, bias, padding=weight.shape[-1] // 2)[0]

    def resample(self, x, kind):
        if kind == "up":
            return x.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        if kind == "down":
            return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
        return x

    def block(self, name, x, time=None, z_sem=None, kind=None):
        h = self.normed(f"{name}.in_layers.0", x)
        h = self.conv(f"{name}.in_layers.2", self.resample(h * h.sigmoid(), kind))
        x = self.resample(x, kind)
        if time is not None:
            weight, bias = self.pair(f"{name}.emb_layers.1")
            both = weight @ (time * time.sigmoid()) + bias
            scale, shift = both[: len(h)], both[len(h) :]
            weight, bias = self.pair(f"{name}.cond_emb_layers.1")
            semantic = weight @ (z_sem * z_sem.sigmoid()) + bias
            h = self.normed(f"{name}.out_layers.0", h)
            h = h * (1 + scale)[:, None, None] + shift[:, None, None]
            h = h * (1 + semantic)[:, None, None]
            h = self.conv(f"{name}.out_layers.3", h * h.sigmoid())
        skip = f"{name}.skip_connection"
        return h + (self.conv(skip, x) if f"{skip}.weight" in self.weights else x)

    def attention(self, name, x):
        tokens = self.normed(f"{name}.norm", x).flatten(1)  # [C, HW]
        weight, bias = self.pair(f"{name}.qkv")
        q, k, v = (weight[:, :, 0] @ tokens + bias[:, None]).split(len(x))
        mixed = v @ torch.softmax(q.T @ k / np.sqrt(len(x)), dim=1).T
        weight, bias = self.pair(f"{name}.proj_out")
        return x + (weight[:, :, 0] @ mixed + bias[:, None]).reshape(x.shape)

    def half(self, prefix, x, levels, *conditions):
        outputs, number = [self.conv(f"{prefix}input_blocks.0.0", x)], 1
        for level in range(levels):
            for kind in (None, None, "down")[: 3 if level < levels - 1 else 2]:
                x = self.block(f"{prefix}input_blocks.{number}.0", outputs[-1], *conditions, kind=kind)
                if f"{prefix}input_blocks.{number}.1.qkv.weight" in self.weights:
                    x = self.attention(f"{prefix}input_blocks.{number}.1", x)
                outputs.append(x)
                number += 1
        x = self.block(f"{prefix}middle_block.0", outputs[-1], *conditions)
        x = self.attention(f"{prefix}middle_block.1", x)
        return outputs, self.block(f"{prefix}middle_block.2", x, *conditions)

    def encode(self, x, levels):
        _, h = self.half("encoder.", x, levels)
        h = self.normed("encoder.out.0", h)
        weight, bias = self.pair("encoder.out.3")
        return weight[:, :, 0, 0] @ (h * h.sigmoid()).mean(dim=(1, 2)) + bias

    def predict(self, x, timestep, z_sem, levels):
        weight, bias = self.pair("time_embed.time_embed.0")
        half = weight.shape[1] // 2
        angles = torch.tensor([timestep * 10000 ** (-i / half) for i in range(half)])
        time = weight @ torch.cat([angles.cos(), angles.sin()]) + bias
        weight, bias = self.pair("time_embed.time_embed.2")
        time = weight @ (time * time.sigmoid()) + bias
        skips, h = self.half("", x, levels, time, z_sem)
        for number in range(3 * levels):
            h = self.block(f"output_blocks.{number}.0", torch.cat([h, skips.pop()]), time, z_sem)
            if f"output_blocks.{number}.1.qkv.weight" in self.weights:
                h = self.attention(f"output_blocks.{number}.1", h)
            for part in (1, 2):
                if f"output_blocks.{number}.{part}.in_layers.0.weight" in self.weights:
                    h = self.block(f"output_blocks.{number}.{part}", h, time, z_sem, kind="up")
        h = self.normed("out.0", h)
        return self.conv("out.2", h * h.sigmoid())


@pytest.fixture(scope="module")
def weights():
    return Layout(**SMALL).random()


def lightning(weights, **more):
    """A training checkpoint with the weights and the other entries of Lightning."""
    state = {f"{kind}.{name}": value for kind in ("model", "ema_model") for name, value in weights.items()}
    state = {name: 0 * value if name.startswith("model.") else value for name, value in state.items()}
    state["x_T"] = torch.zeros(2, 3, SMALL["resolution"], SMALL["resolution"])
    return {"epoch": 3, "global_step": 7, "state_dict": {**state, **more}, "hyper_parameters": {"img_size": 16}}


@torch.no_grad()
def test_converted_networks_equal_the_reference(weights):
    generator, reference = convert(weights, 16), Reference(weights)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    z_sem = generator.encoder(images)
    predicted = generator.unet(images, torch.tensor([3, 700]), z_sem)
    for row, timestep in enumerate((3, 700)):
        torch.testing.assert_close(z_sem[row], reference.encode(images[row], 3), atol=1e-4, rtol=1e-4)
        expected = reference.predict(images[row], timestep, z_sem[row], 2)
        assert expected.std() > 0.1
        torch.testing.assert_close(predicted[row], expected, atol=1e-3, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(
    ("published", "ours", "kind"),
    [("input_blocks.1.0", "unet.down.0.block", None), ("input_blocks.3.0", "unet.down.2.block", "down"),
     ("output_blocks.2.2", "unet.up.2.up", "up"), ("output_blocks.3.0", "unet.up.3.block", None)],
)  # fmt: skip
def test_each_kind_of_block(weights, published, ours, kind):
    block = convert(weights, 16).get_submodule(ours)
    channels = weights[f"{published}.in_layers.0.weight"].shape[0]
    random = torch.Generator().manual_seed(2)
    x, time, z = (torch.randn(shape, generator=random) for shape in ((channels, 8, 8), (40,), (24,)))
    expected = Reference(weights).block(published, x, time, z, kind)
    torch.testing.assert_close(block(x[None], time[None], z[None])[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_full_size_has_all_names_and_shapes():
    published = Layout(**FFHQ256).shapes
    with torch.device("meta"):
        common = {"resolution": 256, "z_dim": 512}
        networks = (
            ConditionalUNet(channels=(128, 128, 256, 256, 512, 512), **common),
            SemanticEncoder(channels=(128, 128, 256, 256, 512, 512, 512), **common),
        )
        generator = convert({name: torch.empty(shape) for name, shape in published.items()}, 256)
    ours = [generator.unet.state_dict(), generator.encoder.state_dict()]
    for network, found in zip(networks, ours, strict=True):
        assert {name: value.shape for name, value in network.state_dict().items()} == {
            name: value.shape for name, value in found.items()
        }
    assert sum(value.numel() for state in ours for value in state.values()) == sum(map(np.prod, published.values()))


def test_a_checkpoint_with_its_statistics(weights, tmp_path, monkeypatch):
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    content = lightning(weights)
    content["callbacks"] = {module.ModelCheckpoint: {"best": np.float64(1.0)}, "made": module.ModelCheckpoint()}
    torch.save(content, tmp_path / "last.ckpt")
    z_sem = torch.randn(500, 24) @ torch.randn(24, 24) + 3
    torch.save({"conds": z_sem, "conds_mean": z_sem.mean(0), "conds_std": z_sem.std(0)}, tmp_path / "latent.ckpt")
    monkeypatch.delitem(sys.modules, module.__name__)

    generator = load_generator(tmp_path / "last.ckpt")
    assert (generator.architecture, generator.resolution, generator.mapper_input_dim) == (
        "diffusion_autoencoder",
        16,
        24,
    )
    expected = convert(weights, 16).unet.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in generator.unet.state_dict().items())
    torch.testing.assert_close(generator.z_mean, z_sem.mean(0))
    torch.testing.assert_close(generator.z_factor @ generator.z_factor.T, z_sem.T.cov(), atol=1e-2, rtol=1e-3)


def test_statistics_inside_and_none_at_all(weights, tmp_path):
    inside = {"conds_mean": torch.full((1, 24), 2.0), "conds_std": torch.full((1, 24), 0.5)}
    torch.save(lightning(weights, **inside), tmp_path / "a.ckpt")
    generator = load_generator(tmp_path / "a.ckpt")
    assert torch.equal(generator.z_mean, torch.full((24,), 2.0))
    assert torch.equal(generator.z_factor, 0.5 * torch.eye(24))
    torch.save(lightning(weights), tmp_path / "b.ckpt")
    with pytest.warns(UserWarning, match=r"no latent\.ckpt"):
        load_generator(tmp_path / "b.ckpt")


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile",)


def test_nothing_is_executed(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({**lightning(weights), "callbacks": Hostile()}, tmp_path / "a.ckpt")
    with pytest.raises(ZeroshiftError, match="mkdir"):
        load_generator(tmp_path / "a.ckpt")
    assert not (tmp_path / "hostile").exists()


def test_unsuitable_files_give_a_message(weights, tmp_path):
    def saved(content):
        torch.save(content, tmp_path / "a.ckpt")
        return tmp_path / "a.ckpt"

    with pytest.raises(ZeroshiftError, match=r"no ema_model\.\* weights"):
        load_generator(saved({"state_dict": weights}))
    with pytest.raises(ZeroshiftError, match="initial_conv"):
        load_generator(saved(lightning(weights | {"initial_conv.weight": torch.zeros(3)})))
    with pytest.raises(ZeroshiftError, match="differs from the published"):
        load_generator(saved(lightning({n: v for n, v in weights.items() if "out_layers.3" not in n})))
    whole = saved(lightning(weights)).read_bytes()
    (tmp_path / "a.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ZeroshiftError):
        load_generator(tmp_path / "a.ckpt")
    torch.save({"conds": torch.zeros(5, 7)}, tmp_path / "latent.pkl")
    with pytest.raises(ZeroshiftError, match="no z_sem of width 24"), warnings.catch_warnings():
        load_generator(saved(lightning(weights)))
