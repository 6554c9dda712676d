"""benchmarks/published.py with a small program in place of the published one, which the tests do not have."""

import json
from pathlib import Path

import pytest
import torch
from published import (
    OURS,
    PUBLISHED,
    TUNED,
    TUNED_ENVIRONMENT,
    Arguments,
    main,
    markdown,
    num_layers,
    rows,
    run_published,
)

# Reads and trains as the published program does: "cuda" in the code, CUDA kernels, a checkpoint, CLIP by name, tqdm.
TRAIN = """
import argparse, json, os
import clip, torch
from torch.utils.cpp_extension import load
from tqdm import tqdm
from model.sg2_model import Generator
load("fused", sources=["fused.cu"])
parser = argparse.ArgumentParser()
for name in ("frozen_gen_ckpt", "output_dir", "ctx_init", "source_class", "target_class"):
    parser.add_argument(f"--{name}")
for name in ("size", "auto_layer_k", "auto_layer_batch", "output_interval"):
    parser.add_argument(f"--{name}", type=int)
for name in ("batch", "batch_mapper", "iter_mapper", "iter"):
    parser.add_argument(f"--{name}", type=int)
for name in ("run_stage1", "run_stage2"):
    parser.add_argument(f"--{name}", action="store_true")
args = parser.parse_args()
if __name__ == "__main__":
    device = "cuda"
    generator = Generator(args.size, 512, 8).to(device)
    generator.load_state_dict(torch.load(args.frozen_gen_ckpt, map_location=device)["g_ema"])
    model, preprocess = clip.load("ViT-B/32", device=torch.device("cuda"))
    tokens = clip.tokenize(["a photo of a " + args.target_class]).to(device)
    for i in tqdm(range(args.iter_mapper)):
        model.transformer(torch.randn(3, 4, device=device).cuda())
    if args.run_stage2:
        for i in tqdm(range(1, args.iter + 1)):
            sum(range(100_000))
    facts = {"tokens": tokens.shape, "widths": generator.widths, "arguments": vars(args),
             "threshold": os.environ.get("MALLOC_MMAP_THRESHOLD_")}
    json.dump(facts, open(os.environ["FACTS"], "w"))
"""
MODEL = """
import torch
class Generator(torch.nn.Module):
    def __init__(self, size, style_dim, n_mlp):
        super().__init__()
        self.channels = {4: 512, 8: 512, 64: 512}
        self.widths = [self.channels[4], self.channels[8], self.channels[64]]
        self.noise = torch.nn.Linear(1, 1)
    def mean_latent(self, number):
        return torch.randn(1, 512, device="cuda")
"""
CLIP = """
import torch
from pkg_resources import packaging
packaging.version.parse("1.0")
from . import clip, model
from .clip import load, tokenize
"""
TOKENIZE = """
import torch
def load(name, device): raise OSError("a download")
def tokenize(texts, context_length=77): return torch.zeros(len(texts), context_length)
def _transform(size): return size
"""
CLIP_MODEL = """
import torch
class Transformer(torch.nn.Module):
    def forward(self, x):
        return x
class CLIP(torch.nn.Module):
    def __init__(self, embed_dim, resolution, *others):
        super().__init__()
        assert (embed_dim, resolution, others[0]) == (128, 64, (1, 2, 2, 1)), others
        self.transformer = Transformer()
        self.visual = torch.nn.Module()
        self.visual.input_resolution = resolution
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        "train.py": TRAIN, "model/sg2_model.py": MODEL, "clip/__init__.py": CLIP, "clip/clip.py": TOKENIZE,
        "clip/model.py": CLIP_MODEL,
    }  # fmt: skip
    for name, text in files.items():
        path = tmp_path / "ipl" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("FACTS", str(tmp_path / "facts.json"))
    return tmp_path / "ipl"


@pytest.mark.slow
def test_a_program_for_a_gpu_runs_unchanged_on_the_cpu(checkout: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    arguments = Arguments(checkout, steps=9, published_steps=2, prompt_batch=5, batch=3, layer_batch=4)
    checkpoint = tmp_path / "generator.pt"
    seconds = run_published("adapt", arguments, checkpoint, TUNED_ENVIRONMENT)
    assert len(seconds) == 3
    assert min(seconds) > 0
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["tokens"] == [1, 64], "the context of the miniature's encoder"
    assert facts["widths"] == [256, 192, 32], "the miniature's channels"
    assert facts["threshold"] == str(2**30)
    expected = {"batch": 3, "batch_mapper": 5, "auto_layer_batch": 4, "iter_mapper": 0, "size": 64, "auto_layer_k": 6}
    assert facts["arguments"].items() >= expected.items()
    saved = torch.load(checkpoint)
    assert saved["latent_avg"].shape == (512,)
    after = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    assert after == before, "nothing is written into the checkout"
    (checkout / "train.py").write_text("raise ValueError('no such flag')")
    with pytest.raises(SystemExit, match=r"ended with code 1:\n.*(?s:.)*ValueError: no such flag"):
        run_published("adapt", arguments, checkpoint)


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"is not a checkout of the published program: it has no train\.py"):
        main(Arguments(tmp_path))
    (tmp_path / "train.py").touch()
    with pytest.raises(SystemExit, match="There is no interpreter nothing"):
        main(Arguments(tmp_path, python=Path("nothing")))
    for zero in ({"rounds": 0}, {"steps": 0}, {"published_steps": 0}):
        with pytest.raises(SystemExit, match="--steps, --published-steps and --rounds must be at least 1"):
            main(Arguments(tmp_path, **zero))
    with pytest.raises(
        SystemExit, match=r"--steps must be a multiple of 4, so that adapt\.layer_every=4 is timed fairly"
    ):
        main(Arguments(tmp_path, steps=6, variants=("adapt.layer_codes=batch", "adapt.layer_every=4")))


def test_as_many_layers_as_the_program_trains() -> None:
    assert [num_layers(size) for size in (64, 256, 512, 1024)] == [6, 9, 10, 12]


def test_ratios_are_those_of_the_medians() -> None:
    variant = f"{OURS}, adapt.layer_codes=batch"
    results = {
        "prompts": {PUBLISHED: [2.0, 9.0, 2.2], TUNED: [1.0, 1.2, 1.1], OURS: [0.5, 0.6, 0.55]},
        "adapt": {PUBLISHED: [4.0], TUNED: [3.0], OURS: [1.0], variant: [0.5]},
    }
    assert rows(results) == [
        ("prompts", "2.2 s", "1.1 s", "0.55 s", "4.0 x", "2.0 x"),
        ("adapt", "4 s", "3 s", "1 s", "4.0 x", "3.0 x"),
        ("adapt, adapt.layer_codes=batch", "4 s", "3 s", "0.5 s", "8.0 x", "6.0 x"),
        ("300 + 300 steps", "1860 s", "1230 s", "465 s", "4.0 x", "2.6 x"),
        ("300 + 300 steps, adapt.layer_codes=batch", "1860 s", "1230 s", "315 s", "5.9 x", "3.9 x"),
    ]
    assert (
        markdown(rows(results), {"threads": 1}).splitlines()[2].startswith("| processor time of a step | published |")
    )
