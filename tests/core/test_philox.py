import pytest
import torch

from zeroshift.core import rng
from zeroshift.core.philox import philox, philox_normal
from zeroshift.core.rng import normal, normal_on

CPU = torch.device("cpu")
KEY = (0xA4093822, 0x299F31D0)


# The known answers of the authors' Random123 library (kat_vectors, philox4x32 with 10 rounds).
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            KEY,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]) -> None:
    assert tuple(int(word) for word in philox([torch.tensor(word) for word in counter], key)) == words


def test_rows_depend_on_key_and_sample_only() -> None:
    whole = philox_normal((3, 7), KEY, range(5), CPU)
    assert whole.shape == (5, 3, 7)
    assert whole.dtype == torch.float32
    for samples in ([0, 1], [4], [3, 2]):
        assert torch.equal(philox_normal((3, 7), KEY, samples, CPU), whole[samples])
    assert not torch.equal(philox_normal((3, 7), (1, 2), [0], CPU), whole[:1])
    assert torch.equal(philox_normal((5,), KEY, [2], CPU)[0], whole[2].flatten()[:5]), "a place has one number"
    far = philox_normal((4,), KEY, [2, 2 + 2**32], CPU)
    assert not torch.equal(far[0], far[1])
    assert philox_normal((4,), KEY, [], CPU).shape == (0, 4)


def test_numbers_are_independent_and_normal() -> None:
    rows = philox_normal((250_000,), KEY, range(4), CPU).double()
    assert rows.mean().abs() < 0.004
    assert rows.var() == pytest.approx(1, abs=0.006)
    assert (rows**3).mean().abs() < 0.012
    assert (rows**4).mean() == pytest.approx(3, abs=0.05)
    assert rows.abs().max() < 6
    for lag in range(1, 9):
        assert (rows[:, lag:] * rows[:, :-lag]).mean().abs() < 0.005
    assert (torch.corrcoef(rows) - torch.eye(4)).abs().max() < 0.01
    expected = torch.special.ndtr(torch.linspace(-3, 3, 25, dtype=torch.float64))
    below = torch.tensor([float((rows < value).double().mean()) for value in torch.linspace(-3, 3, 25)])
    assert (below - expected).abs().max() < 0.002


def test_a_cpu_keeps_its_numbers_and_other_devices_compute_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = (3, "noise", 7)
    assert torch.equal(normal_on(CPU, (6,), *keys, samples=[1, 4]), normal((6,), *keys, samples=[1, 4]))
    seen = []
    monkeypatch.setattr(rng, "philox_normal", lambda *arguments: seen.append(arguments))
    meta = torch.device("meta")
    for one in (keys, (3, "noise", 8), (4, "noise", 7), (3, "other", 7)):
        normal_on(meta, (6,), *one, samples=[1, 4])
    assert [call[0] for call in seen] == [(6,)] * 4
    assert len({call[1] for call in seen}) == 4, "keys of their own"
    assert all(0 <= word < 2**32 for call in seen for word in call[1])
    assert {call[3] for call in seen} == {meta}
