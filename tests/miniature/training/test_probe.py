"""The recipe of the probe."""

import pytest
import torch
from safetensors.torch import load_file

from zeroshift.miniature.networks.encoders import (
    PROBE_CONFIG,
)
from zeroshift.miniature.training import probe as train_probe
from zeroshift.miniature.training.data import Blocks


@pytest.mark.slow
def test_probe_training_resumes_bit_for_bit_and_starts_from_a_file(few_people, tmp_path, monkeypatch):
    monkeypatch.setattr(train_probe.DomainExam, "make", lambda **_: None)
    monkeypatch.setattr(train_probe, "probe_report", lambda *_: {"R2": 0.0})
    monkeypatch.setattr(train_probe, "PROBE_CONFIG", SMALL := {**PROBE_CONFIG, "channels": [8] * 4, "face_width": 8})
    monkeypatch.setattr("zeroshift.miniature.networks.encoders.PROBE_CONFIG", SMALL)
    monkeypatch.setattr(Blocks, "batch", lambda self, *_, **__: self.block(1))

    def train(folder, **options):
        return train_probe.train_probe(
            tmp_path / folder, images=tmp_path / "blocks", blocks=2, steps=2, face_steps=2,
            weights=tmp_path / f"{folder}.safetensors", **options,
        )  # fmt: skip

    assert train("whole") == 4
    assert [train("parts", minutes=0) for _ in range(2)] == [1, 3]
    assert train("parts") == 4
    whole, parts = load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "parts.safetensors")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    train("more", start=tmp_path / "whole.safetensors", rate=1e-9, precision="bf16", block_seed=2)
    more = load_file(tmp_path / "more.safetensors")
    torch.testing.assert_close(more["face.wide.weight"], whole["face.wide.weight"], atol=1e-3, rtol=1e-3)
