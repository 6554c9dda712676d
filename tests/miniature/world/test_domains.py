"""Domains and their labels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroshift.errors import ZeroshiftError
from zeroshift.miniature.world.captions import labels
from zeroshift.miniature.world.domains import BEINGS, DOMAINS, HELD_OUT, MEDIA, SOURCE, TRAINED, parse_domain


def test_labels_parse_and_held_out_pairs_combine_trained_words():
    assert len(MEDIA) >= 12
    assert len(BEINGS) >= 7
    assert len(HELD_OUT) >= 12
    assert set(TRAINED) | HELD_OUT == set(DOMAINS)
    assert SOURCE in TRAINED
    # Every word of a held-out pair occurs in a training pair.
    assert {d.medium for d in TRAINED} == set(MEDIA)
    assert {d.being for d in TRAINED} == set(BEINGS)
    for domain in DOMAINS:
        assert parse_domain(domain.label) == domain
        assert parse_domain("An " + domain.full_label) == domain
        assert {"x_position", "yaw"} <= set(domain.visible)
    with pytest.raises(ZeroshiftError, match="no domain 'disney'"):
        parse_domain("disney")


@given(
    domain=st.sampled_from(DOMAINS), number=st.integers(0, 2), article=st.sampled_from(["", "a ", "An ", "THE "]),
    change=st.sampled_from([str.lower, str.upper, str.title]), space=st.sampled_from(["", " ", "\n"]),
)  # fmt: skip
def test_every_label_parses_in_any_case_with_any_article(domain, number, article, change, space):
    label = labels(domain)[number % len(labels(domain))]
    assert parse_domain(space + article + change(label) + space) == domain


@given(text=st.text(max_size=40).filter(lambda text: not any(word in text.lower() for word in (*MEDIA, *BEINGS))))
def test_other_texts_are_refused_by_a_sentence_that_lists_all_words(text):
    with pytest.raises(ZeroshiftError, match="has no domain") as refused:
        parse_domain(text)
    assert all(word in str(refused.value) for word in (*MEDIA, *BEINGS))
