"""Large features are kept in a file, and measures read them some rows at a time."""

from pathlib import Path

import pytest
import torch

from zeroshift.core.memory import release_freed_memory
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.feature_rows import FeatureRows, all_finite, in_parts
from zeroshift.evaluation.metrics.frechet import frechet_distance, sifid
from zeroshift.evaluation.metrics.pairs import structural_consistency


def anonymous_memory() -> int:
    """Bytes of this process that are in no file."""
    release_freed_memory()  # of the C library, from anything before
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
@pytest.mark.parametrize("shape", [(3,), (100, 70), (3, 64, 128)])
def test_features_come_back_as_they_were(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    batches = [(torch.rand(count, *shape) * 200).to(dtype) for count in (4, 4, 1)]
    rows = FeatureRows()
    for batch in batches:
        rows.add(batch.transpose(-1, -2).contiguous().transpose(-1, -2) if len(shape) > 1 else batch)
    assert torch.equal(rows.tensor(), torch.cat(batches))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_large_features() -> None:
    rows = FeatureRows()
    before = anonymous_memory()
    for number in range(200):
        rows.add(torch.full((1, 1 << 18), float(number)))  # 1 MiB
    features = rows.tensor()
    assert all_finite(features)
    means = torch.cat([part.mean(dim=1) for (part,) in in_parts(features)])
    assert torch.equal(means, torch.arange(200.0))
    assert anonymous_memory() - before < 60 * 2**20


def test_values_do_not_depend_on_the_parts() -> None:
    a, b = torch.rand(2, 37, 8, 8)
    parts = [structural_consistency(one, other) for one, other in in_parts(a, b)]
    assert len(parts) == 3
    torch.testing.assert_close(torch.cat(parts), structural_consistency(a, b))
    means, roots = torch.rand(37, 4).double(), torch.rand(37, 4, 4).double()
    references = means[:3] + 1, roots[:3] * 2
    every = [[float(frechet_distance((m, r), (n, s))) for m, r in zip(means, roots, strict=True)]
             for n, s in zip(*references, strict=True)]  # fmt: skip
    assert sifid((means, roots), references) == pytest.approx(float(torch.tensor(every).mean()))


def test_one_value_that_is_not_finite_is_found() -> None:
    features = torch.zeros(40, 3)
    assert all_finite(features)
    features[39, 2] = torch.nan
    assert not all_finite(features)


def test_a_full_disk_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zeroshift.evaluation.feature_rows.tempfile.TemporaryFile", full)
    with pytest.raises(ZeroshiftError, match="The disk is full"):
        FeatureRows().add(torch.zeros(1, 1 << 16))
