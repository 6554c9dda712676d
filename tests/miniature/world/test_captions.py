import random

import pytest
import torch

from zeroshift.miniature.networks.encoders import CONTEXT_LENGTH, tokenize
from zeroshift.miniature.world.captions import (
    TEMPLATES,
    being_text,
    caption,
    captions,
    known_labels,
    known_words,
    labels,
    medium_text,
)
from zeroshift.miniature.world.domains import BEINGS, DOMAINS, HELD_OUT, MEDIA, SOURCE, TRAINED, Domain, parse_domain
from zeroshift.miniature.world.factors import FACTOR_INDEX, NUM_FACTORS

# Words that belong to one factor alone, so that a caption which holds them names it
TELLING = {
    "hair_color": ("ginger", "blond"),
    "skin_tone": ("fair skin", "dark skin", "light skin"),
    "clothing_pattern": ("striped", "plain"),
    "earrings": ("earrings",),
    "glasses": ("glasses",),
    "beard": ("beard", "moustache"),
    "background_color": ("teal", "sand", "olive"),
    "light_x": ("lit from the left", "lit from the right"),
    "mouth_curve": ("smiling", "frowning"),
}


def person(**u):
    positions = [0.5] * NUM_FACTORS
    for name, value in u.items():
        positions[FACTOR_INDEX[name]] = value
    return positions


def everything(domain, u, seed=0):
    return caption(domain, u, random.Random(seed), num_details=99)


def test_same_seed_same_captions():
    latents = torch.randn(20, 32, generator=torch.Generator().manual_seed(0))
    domains = [TRAINED[i] for i in range(20)]
    first = captions(latents, domains, seed="a")
    assert first == captions(latents, domains, seed="a")
    assert first != captions(latents, domains, seed="b")
    assert len(set(first)) == 20


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
def test_captions_name_medium_and_being_and_nothing_hidden(domain):
    latents = torch.randn(30, 32, generator=torch.Generator().manual_seed(1))
    for text in captions(latents, [domain] * 30, seed="hidden", num_details=40):
        assert domain.medium in text or domain.medium == "photo"
        assert domain.being in text or (domain.being == "person" and "someone" in text)
        for name, words in TELLING.items():
            assert name in domain.visible or not any(word in text for word in words), (name, text)


def test_scalars_are_named_on_one_side_only():
    assert "smiling" in everything(SOURCE, person(mouth_curve=0.9))
    assert "frowning" in everything(SOURCE, person(mouth_curve=0.1))
    middle = everything(SOURCE, person(mouth_curve=0.5))
    assert "smiling" not in middle
    assert "frowning" not in middle
    assert any(words in everything(SOURCE, person(yaw=0.1)) for words in ("looking left", "turned to the left"))


def test_classes_are_not_named_at_their_borders():
    border = 0.65  # between no earrings and gold ones
    assert "no earrings" in everything(SOURCE, person(earrings=border - 0.05))
    assert "earrings" not in everything(SOURCE, person(earrings=border + 0.005))
    assert "earrings" in everything(SOURCE, person(earrings=0.999))


def test_more_details_make_longer_captions():
    u = person(mouth_curve=0.9, yaw=0.1, nose_width=0.95, hat=0.9)
    few, many = (caption(SOURCE, u, random.Random(0), count) for count in (1, 12))
    assert len(few.split()) < len(many.split())


def test_without_details_only_the_head_remains():
    heads = {caption(Domain("mosaic", "elf"), person(), random.Random(seed), 0) for seed in range(20)}
    assert heads == {"a mosaic of an elf", "a mosaic showing an elf", "the mosaic of an elf"}


def test_long_captions_fit_the_context():
    latents = torch.randn(500, 32, generator=torch.Generator().manual_seed(2))
    tokens = tokenize(captions(latents, [SOURCE] * 500, seed="long", num_details=10))
    assert tokens.shape == (500, CONTEXT_LENGTH)
    assert ((tokens != 0).sum(1) < CONTEXT_LENGTH).all()


def test_labels_parse_to_their_domain():
    for domain in DOMAINS:
        assert all(parse_domain(label) == domain for label in labels(domain))
    assert set(labels(SOURCE)) == {"photo", "person", "photo of a person"}
    assert len(TEMPLATES) >= 12
    assert all(template.count("{}") == 1 for template in TEMPLATES)


def test_known_labels_exclude_held_out_pairs():
    known = known_labels()
    assert {parse_domain(label) for label in known} == set(TRAINED)
    assert not {label for domain in HELD_OUT for label in labels(domain)} & set(known)


def test_known_words_cover_all_texts():
    known = set(known_words())
    latents = torch.randn(600, 32, generator=torch.Generator().manual_seed(3))
    texts = captions(latents, [DOMAINS[i % len(DOMAINS)] for i in range(600)], seed="words", num_details=20)
    texts += [t.format(label) for t in TEMPLATES for d in DOMAINS for label in labels(d)]
    texts += [*map(medium_text, MEDIA), *map(being_text, BEINGS)]
    said = {word.strip(",.") for text in texts for word in text.replace("-", " ").split()}
    assert said - {""} <= known
    assert len(known - said) <= 3  # and hardly a word that is never said
