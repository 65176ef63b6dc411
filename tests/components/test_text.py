"""Texts to tokens, against Python's own Unicode functions."""

import unicodedata
from typing import Literal

import pytest
import tensorflow as tf
from hypothesis import assume, given
from hypothesis import strategies as st

from components.transform.text import fold, tokens

IOTA_SUBSCRIPT = "\N{COMBINING GREEK YPOGEGRAMMENI}"
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def of(texts: list[str], words: bool = True, ngrams: tuple[int, ...] = ()) -> list[list[str]]:
    found = tf.sparse.to_dense(tokens(tf.constant([text.encode() for text in texts]), words, ngrams)).numpy()
    return [[token.decode() for token in row if token] for row in found]


def folded(text: str) -> str:
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())


@given(st.lists(TEXT, min_size=1, max_size=5))
def test_texts_are_folded_as_unicode_says(texts: list[str]) -> None:
    assume(not any(IOTA_SUBSCRIPT in unicodedata.normalize("NFKD", text) for text in texts))
    found = fold(tf.constant([text.encode() for text in texts])).numpy()
    assert [text.decode() for text in found] == [folded(text) for text in texts]


@given(TEXT, st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_equivalent_spellings_have_the_same_tokens(text: str, form: Literal["NFC", "NFD", "NFKC", "NFKD"]) -> None:
    assume(IOTA_SUBSCRIPT not in unicodedata.normalize("NFKD", text))
    first, second = of([text, unicodedata.normalize(form, text)], ngrams=(2, 3))
    assert first == second


def test_marks_are_brought_into_their_order() -> None:
    # The dot below (class 220) comes before the circumflex (230), however they were typed; marks of one class stay as they are.
    dot, circumflex, acute = "\u0323", "\u0302", "\u0301"
    assert fold(tf.constant(["e" + circumflex + dot, "\u1ec7", dot + "a" + acute + circumflex])).numpy().tolist() == [
        f"e{dot}{circumflex}".encode(),
        f"e{dot}{circumflex}".encode(),
        f"{dot}a{acute}{circumflex}".encode(),
    ]


def test_words_then_ngrams() -> None:
    assert of(["It's  a-b\tC3!", "", "\N{ANT}"]) == [["it", "s", "a", "b", "c3"], [], []]
    assert of(["to be"], ngrams=(3,)) == [["to", "be", " <to", " to>", " <be", " be>"]]
    assert of(["to"], words=False, ngrams=(2, 4)) == [[" <t", " to", " o>", " <to>"]]
    assert of(["a"], words=False, ngrams=(4,)) == [[]]  # <a> is shorter


def test_an_ngram_counts_letters_with_their_marks_and_korean_syllables() -> None:
    (found,) = of(["h\u00e9\u00e9 \ud55c\uad6d"], words=False, ngrams=(3,))
    assert [unicodedata.normalize("NFC", gram) for gram in found] == [
        " <h\u00e9", " h\u00e9\u00e9", " \u00e9\u00e9>", " <\ud55c\uad6d", " \ud55c\uad6d>",
    ]  # fmt: skip


def test_bytes_that_are_not_utf8_are_replaced() -> None:
    found = tf.sparse.to_dense(tokens(tf.constant([b"a\xffb"]), True, ())).numpy()
    assert found.tolist() == [[b"a", b"b"]]  # the replacement character is no letter


@pytest.mark.parametrize("texts", [[], [""]])
def test_there_may_be_nothing(texts: list[str]) -> None:
    assert tokens(tf.constant(texts, tf.string), True, (3,)).dense_shape.numpy().tolist() == [len(texts), 0]
