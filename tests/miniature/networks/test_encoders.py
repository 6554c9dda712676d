from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from zeroshift.clip.loading import load_encoder
from zeroshift.errors import ZeroshiftError
from zeroshift.miniature.exams import measure
from zeroshift.miniature.networks.encoders import (
    JUDGE_CONFIG,
    NUM_READINGS,
    PROBE_CONFIG,
    Judge,
    Probe,
    build_guide,
    encode_tokens,
    load_judge,
    load_probe,
    load_weights,
    readings,
    save_encoder,
    save_probe,
    tokenize,
)
from zeroshift.miniature.training import data
from zeroshift.miniature.training import probe as train_probe
from zeroshift.miniature.training.augment import Augmentation, augment
from zeroshift.miniature.training.contrastive import ContrastiveSettings, _grey, contrastive_loss, train_contrastive
from zeroshift.miniature.training.data import DOMAINS_PER_BLOCK, Blocks
from zeroshift.miniature.training.factor_loss import factor_loss, visibility
from zeroshift.miniature.training.optimisers import seeded
from zeroshift.miniature.world.captions import TEMPLATES, known_labels, known_words
from zeroshift.miniature.world.domains import DOMAINS, KEPT_OUT, SEEN, SOURCE, Domain
from zeroshift.miniature.world.factors import FACTORS, NUM_FACTORS, class_weights
from zeroshift.miniature.world.renderer import render

TEXTS = ["a zombie", "a pencil sketch of a smiling clown with round glasses, looking left", ""]


@pytest.fixture(scope="module")
def guide():
    return seeded(build_guide, 0).eval()


@pytest.fixture(scope="module")
def judge():
    return seeded(lambda: Judge(**JUDGE_CONFIG), 0).eval()


@pytest.fixture
def few_people(monkeypatch):
    monkeypatch.setattr(data, "PEOPLE", 4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- encoders


@pytest.mark.parametrize("name", ["guide", "judge"])
def test_texts_cut_to_their_length_encode_the_same(name, request):
    model, tokens = request.getfixturevalue(name), tokenize(TEXTS)
    weight = getattr(model, "text", model).token_embedding.weight
    fast, naive = encode_tokens(model, tokens), model.encode_text(tokens)
    torch.testing.assert_close(fast, naive, atol=1e-5, rtol=1e-4)
    gradients = [torch.autograd.grad(out.square().sum(), weight)[0] for out in (fast, naive)]
    torch.testing.assert_close(*gradients, atol=2e-4, rtol=1e-3)


def test_guide_file_opens_as_any_encoder(guide, tmp_path):
    save_encoder(guide, tmp_path / "guide.safetensors")
    encoder = load_encoder(str(tmp_path / "guide.safetensors"))
    assert (encoder.resolution, encoder.embed_dim, encoder.templates) == (64, 128, TEMPLATES)
    assert encoder.known_words == set(known_words())
    assert tuple(encoder.known_labels) == known_labels()
    images = torch.rand(2, 3, 64, 64, generator=generator()) * 2 - 1
    near = {"atol": 0.02, "rtol": 0.02}  # the file is in half precision
    torch.testing.assert_close(encoder.encode_image(images), guide.encode_image(images).detach(), **near)
    torch.testing.assert_close(encoder.encode_text(TEXTS), guide.encode_text(tokenize(TEXTS)).detach(), **near)
    assert (tmp_path / "guide.safetensors").stat().st_size < 20e6


def test_judge_file_opens_with_the_same_interface(judge, tmp_path):
    save_encoder(judge, tmp_path / "judge.safetensors")
    encoder = load_judge(tmp_path / "judge.safetensors")
    images = torch.rand(2, 3, 64, 64, generator=generator()) * 2 - 1
    near = {"atol": 0.02, "rtol": 0.02}
    torch.testing.assert_close(encoder.encode_image(images), judge.encode_image(images).detach(), **near)
    torch.testing.assert_close(encoder.encode_text(TEXTS), judge.encode_text(tokenize(TEXTS)).detach(), **near)
    assert encoder.label_feature("zombie").shape == (128,)
    assert not any(p.requires_grad for p in encoder.parameters())


def test_probe_reads_every_factor(tmp_path):
    probe = seeded(lambda: Probe(**PROBE_CONFIG), 0).eval()
    save_probe(probe, tmp_path / "probe.safetensors")
    read = load_probe(tmp_path / "probe.safetensors")(torch.zeros(2, 3, 64, 64))
    assert list(read) == [factor.name for factor in FACTORS]
    for factor in FACTORS:
        assert read[factor.name].shape == ((2, len(factor.classes)) if factor.is_class else (2,))


def test_foreign_and_broken_files_are_sentences(judge, tmp_path):
    (tmp_path / "rubbish").write_bytes(b"not a model")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    for load in (load_judge, load_probe):
        with pytest.raises(ZeroshiftError, match="cannot be read"):
            load(tmp_path / "rubbish")
        with pytest.raises(ZeroshiftError, match="cannot be read"):
            load(tmp_path / "missing")
        with pytest.raises(ZeroshiftError, match="another kind"):
            load(tmp_path / "foreign")


def test_seeded_weights_leave_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (seeded(lambda: torch.nn.Linear(3, 3), 7).weight for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.rand(1), expected)


# ---------------------------------------------------------------- data


def test_blocks_hold_no_kept_out_pair_and_are_the_same_again(few_people, tmp_path):
    blocks = Blocks(tmp_path, 40, seed=1)
    shown = [domain for block in blocks.domains for domain in block]
    assert not KEPT_OUT & set(shown)
    assert all(block[0] == SOURCE and len(set(block)) == DOMAINS_PER_BLOCK for block in blocks.domains)
    assert set(shown) == set(SEEN)
    assert Blocks(tmp_path, 20, seed=1).domains == blocks.domains[:20]  # more blocks change none of the first


def test_batch_shows_what_it_says(few_people, tmp_path):
    blocks = Blocks(tmp_path, 2, seed=3)
    batch = blocks.batch(generator(), 2, groups=2, people=3)
    assert batch.images.shape == (2 * DOMAINS_PER_BLOCK * 3, 3, 64, 64)
    row = 4  # second domain of the first group
    assert batch.domains[row] == SEEN[batch.indices[row]]
    assert torch.equal(batch.latents[row], batch.latents[row - 3])  # the same person in the domain before
    sample = next(i for i, z in enumerate(blocks.latents.flatten(0, 1)) if torch.equal(z, batch.latents[row]))
    truth = render(batch.latents[row : row + 1], batch.domains[row], 3, [sample])
    assert (batch.images[row] - truth[0]).abs().max() <= 1 / 127  # eight bits
    again = Blocks(tmp_path, 2, seed=3).batch(generator(), 2, groups=2, people=3)
    assert torch.equal(batch.images, again.images)


def test_augmentation_is_a_function_of_its_generator():
    images = torch.rand(6, 3, 64, 64, generator=generator()) * 2 - 1
    how = Augmentation(0.1, 0.05, 0.3, 0.2, 0.5, 0.5, 0.5, 0.5, 0.3)
    first, second, other = (augment(images, how, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.abs().max() <= 1
    assert torch.equal(augment(images, Augmentation(), generator()), images)


def test_blur_keeps_flat_areas_and_the_mean():
    images = torch.zeros(2, 3, 64, 64)
    images[:, :, 32, 32] = 1
    blurred = augment(images, Augmentation(blur=1.0), generator())
    assert blurred.max() < 0.7
    torch.testing.assert_close(blurred.sum(), images.sum())


# ---------------------------------------------------------------- losses and measures


def test_factor_loss_equals_its_naive_twin():
    outputs = torch.randn(5, NUM_READINGS, generator=generator(), requires_grad=True)
    positions = torch.rand(5, NUM_FACTORS, generator=generator(1))
    domains = [SOURCE, Domain("mosaic", "elf"), Domain("photo", "alien"), SOURCE, Domain("blueprint", "person")]
    total, count = 0.0, 0
    for row, domain in enumerate(domains):
        read = {name: part[row] for name, part in readings(outputs).items()}
        for index, factor in enumerate(FACTORS):
            if factor.name not in domain.visible:
                continue
            u = positions[row, index]
            if factor.is_class:
                share = class_weights(factor, u[None])[0]
                one = -(share * read[factor.name].log_softmax(0)).sum() / torch.tensor(len(factor.classes)).log()
            else:
                one = (read[factor.name] - u) ** 2 / (1 / 12)
            total, count = total + one, count + 1
    fast = factor_loss(outputs, positions, visibility(domains))
    torch.testing.assert_close(fast, total / count)
    torch.testing.assert_close(*(torch.autograd.grad(loss, outputs)[0] for loss in (fast, total / count)))


def test_contrastive_loss_knows_its_pairs():
    features = F.normalize(torch.randn(8, 16, generator=generator()), dim=-1)
    scale = torch.tensor(50.0)
    assert contrastive_loss(features, features, scale) < contrastive_loss(features, features.roll(1, 0), scale)


def test_retrieval_and_domain_accuracy_count():
    features = torch.eye(4)
    assert measure.retrieval(features, features) == 1
    assert measure.retrieval(features, features[[0, 1, 3, 2]]) == 0.5
    assert measure.domain_accuracy(features, features, torch.tensor([0, 1, 2, 0])).tolist() == [1, 1, 1, 0]


def test_pgd_stays_in_its_ball_and_moves_towards_the_target():
    project = torch.randn(3 * 8 * 8, 5, generator=generator())
    labels = torch.eye(5)
    images = torch.rand(4, 3, 8, 8, generator=generator(1)) * 2 - 1
    target = torch.tensor([1, 2, 3, 4])

    def encode(x):
        return x.flatten(1) @ project

    attacked = measure.pgd(encode, labels, images, target, size=8 / 255, steps=5)
    assert (attacked - images).abs().max() <= 16 / 255 + 1e-6  # of the range [-1, 1]
    assert attacked.abs().max() <= 1
    before, after = (F.normalize(encode(x), dim=-1)[torch.arange(4), target] for x in (images, attacked))
    assert (after > before).all()


def test_domain_exam_and_probe_table_cover_what_is_visible():
    exam = measure.DomainExam.make(seed=9, per_domain=2)
    assert exam.images.shape == (2 * len(DOMAINS), 3, 64, 64)
    probe = seeded(lambda: Probe(**PROBE_CONFIG), 0).eval()
    table = measure.factor_table(probe, exam)
    assert set(table) == {(domain.full_label, name) for domain in DOMAINS for name in domain.visible}
    report = measure.probe_report(probe, exam)
    assert report["R2"] < 0.3  # fresh weights know nothing
    assert 0 < report["class accuracy"] < 0.7


# ---------------------------------------------------------------- training


@pytest.fixture
def no_exams(monkeypatch):
    monkeypatch.setattr("zeroshift.miniature.training.contrastive.DomainExam.make", lambda **_: None)
    monkeypatch.setattr("zeroshift.miniature.training.contrastive.domain_report", lambda *_: {"seen": 0.0})
    monkeypatch.setattr(
        "zeroshift.miniature.training.contrastive.retrieval_report", lambda *_, **__: {SOURCE.full_label: 0.0}
    )


SETTINGS = ContrastiveSettings(
    Augmentation(noise=0.5, noise_level=0.1), seed=1, steps=4, warm_steps=1, groups=1, people=2, captioned=6,
    adversarial=2, grey=2,
)  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_contrastive_training_resumes_bit_for_bit(precision, few_people, no_exams, tmp_path):
    settings = replace(SETTINGS, precision=precision)
    small = {**JUDGE_CONFIG, "channels": [4, 4, 4, 4]}
    blocks = Blocks(tmp_path / "blocks", 2, seed=1)
    states = []
    for folder, limits in (("whole", [None]), ("parts", [0, 0, None])):
        for minutes in limits:
            model = seeded(lambda: Judge(**small), 1)
            before = {name: value.clone() for name, value in model.state_dict().items()}
            reached = train_contrastive(
                model, tmp_path / folder, blocks, settings, weights=tmp_path / f"{folder}.safetensors", minutes=minutes
            )
        assert reached == 4
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(before["visual.stem.weight"], states[0]["visual.stem.weight"])
    assert not torch.equal(before["text.text_projection"], states[0]["text.text_projection"])
    assert {value.dtype for value in states[0].values()} <= {torch.float32, torch.int64}


def test_contrastive_training_starts_from_a_file(few_people, no_exams, tmp_path):
    shipped = seeded(lambda: Judge(**JUDGE_CONFIG), 5)
    save_encoder(shipped, tmp_path / "start.safetensors")
    settings = replace(SETTINGS, warm_steps=0, steps=1, rate=1e-9, start=str(tmp_path / "start.safetensors"))
    model = seeded(lambda: Judge(**JUDGE_CONFIG), 1)
    blocks = Blocks(tmp_path / "blocks", 2, seed=1)
    train_contrastive(model, tmp_path / "out", blocks, settings, weights=tmp_path / "end.safetensors")
    torch.testing.assert_close(model.visual.stem.weight, shipped.visual.stem.weight, atol=1e-3, rtol=1e-3)
    with pytest.raises(ZeroshiftError, match="another kind of model"):
        load_weights(build_guide(), tmp_path / "start.safetensors")
    with pytest.raises(ZeroshiftError, match="other settings"):  # not the same training
        train_contrastive(model, tmp_path / "out", blocks, replace(settings, start=""), weights=tmp_path / "end")


def test_grey_has_one_brightness_and_is_sometimes_a_negative():
    images = torch.rand(40, 1, 4, 4).expand(-1, 3, -1, -1) * 2 - 1
    grey = _grey(images, generator())
    assert torch.equal(grey[:, 0], grey[:, 2])
    kept = (grey - images).abs().amax(dim=(1, 2, 3)) < 1e-6
    negative = (grey + images).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert (kept ^ negative).all()
    assert 10 < kept.sum() < 30
    green, blue = (
        _grey(torch.tensor(colour).view(1, 3, 1, 1), generator()).abs().mean() for colour in ([0.0, 1, 0], [0.0, 0, 1])
    )
    assert green > blue


def test_probe_training_resumes_bit_for_bit_and_starts_from_a_file(few_people, tmp_path, monkeypatch):
    monkeypatch.setattr(train_probe, "probe_report", lambda *_: {"R2": 0.0})
    monkeypatch.setattr(train_probe, "PROBE_CONFIG", SMALL := {**PROBE_CONFIG, "channels": [4] * 4, "face_width": 8})
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
