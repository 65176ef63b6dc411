"""Splits texts into words and character n-grams with TensorFlow operations only: the same in training and in serving.

TensorFlow has no operation that normalises Unicode. Here every character is replaced by its lower-case compatibility decomposition
(NFKD), and the marks after a letter are sorted into canonical order: equivalent spellings become equal texts.
The tables come from Python's Unicode database and become constants of the graph.
"""

import functools
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components import ragged

NO_WORD = r"[^\p{L}\p{M}\p{N}]+"
# A letter with its marks, or the parts of a Korean syllable: one character of an n-gram.
LETTER = r"([\x{1100}-\x{115F}][\x{1160}-\x{11A7}][\x{11A8}-\x{11FF}]?|.\p{M}*)"
FIRST, LAST = "<", ">"  # around a word, in n-grams
NGRAM = " "  # before an n-gram, so that none is a word
SURROGATES = range(0xD800, 0xE000)
BLOCK = 256  # characters that are processed together
CLASSES = 256  # more than there are canonical combining classes


class Folding(NamedTuple):
    """The replacements of characters, and the order of marks.

    Attributes:
        characters: [replaced] int32, sorted: the characters with a replacement other than themselves.
        starts: [replaced + 1] int32; the n-th is replaced by `replacements[starts[n]:starts[n + 1]]`.
        replacements: int32 characters.
        marks: [marks] int32, sorted: the characters with a combining class above 0.
        classes: [marks] int64, their combining classes.
    """

    characters: NDArray[np.int32]
    starts: NDArray[np.int32]
    replacements: NDArray[np.int32]
    marks: NDArray[np.int32]
    classes: NDArray[np.int64]


@functools.cache
def folding() -> Folding:
    """Compute the tables of this Python's Unicode version."""
    replaced: dict[int, str] = {}
    classes: dict[int, int] = {}
    for start in range(0, sys.maxunicode + 1, BLOCK):
        characters = [chr(code) for code in range(start, start + BLOCK) if code not in SURROGATES]
        classes |= {ord(mark): number for mark in characters if (number := unicodedata.combining(mark))}
        text = "\n".join(characters)
        if unicodedata.normalize("NFKD", text) == text == text.casefold():
            continue  # most blocks need no change: checking a million characters one by one would take half a second
        for character in characters:
            folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
            if folded != character:
                replaced[ord(character)] = folded
    lengths = [len(folded) for folded in replaced.values()]
    return Folding(
        np.array(list(replaced), np.int32),
        ragged.offsets(lengths).astype(np.int32),
        np.array([ord(character) for folded in replaced.values() for character in folded], np.int32),
        np.array(list(classes), np.int32),
        np.array(list(classes.values()), np.int64),
    )


def tokens(texts: tf.Tensor, words: bool, ngrams: Sequence[int]) -> tf.SparseTensor:
    """Split texts into tokens: their words, then the n-grams of each word.

    Args:
        texts: [batch] UTF-8; an empty one has no tokens.
        words: whether words are tokens.
        ngrams: the lengths of n-grams, in letters with their marks.

    Returns:
        [batch, tokens] strings.
    """
    return _tokens_function(words, tuple(ngrams))(texts)


@functools.cache
def _tokens_function(words: bool, ngrams: tuple[int, ...]) -> Any:
    """Trace `tokens` once per process: TensorFlow Transform would trace its hundreds of operations some ten times a day."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string)])
    def traced(texts: tf.Tensor) -> tf.SparseTensor:
        found_words = tf.strings.split(tf.strings.regex_replace(fold(texts), NO_WORD, " "))
        token_lists = [found_words] if words else []
        if ngrams:
            marked = found_words.with_flat_values(tf.strings.join([FIRST, found_words.flat_values, LAST]))
            characters = tf.strings.split(tf.strings.regex_replace(marked, LETTER, r"\1 "))
            grams = tf.strings.ngrams(characters, ngrams, separator="").merge_dims(1, 2)
            token_lists.append(grams.with_flat_values(tf.strings.join([NGRAM, grams.flat_values])))
        return tf.concat(token_lists, axis=1).to_sparse()

    return traced


def fold(texts: tf.Tensor) -> tf.Tensor:
    """Normalise [batch] UTF-8 texts; invalid UTF-8 becomes the replacement character.

    Equal to NFKD(casefold(NFKD(text))), except for a mark after a Greek iota subscript, which here becomes a letter before marks
    are sorted.
    """
    table = folding()
    decoded = tf.strings.unicode_decode(texts, "UTF-8", errors="replace")
    codes, text = decoded.flat_values, decoded.value_rowids()
    row, is_replaced = _find(codes, table.characters)
    starts = tf.gather(tf.constant(table.starts), row)
    counts = tf.where(is_replaced, tf.gather(tf.constant(table.starts), row + 1) - starts, 1)
    # Repeat every character by the length of its replacement, with its position in the replacement.
    source = tf.repeat(tf.range(tf.size(codes)), counts)
    place = tf.range(tf.size(source)) - tf.gather(tf.cumsum(counts, exclusive=True), source)
    place = tf.where(tf.gather(is_replaced, source), tf.gather(starts, source) + place, 0)
    replacements = tf.gather(tf.constant(table.replacements), place)
    folded = tf.where(tf.gather(is_replaced, source), replacements, tf.gather(codes, source))
    of_text = tf.gather(text, source)
    mark, is_mark = _find(folded, table.marks)
    classes = tf.where(is_mark, tf.gather(tf.constant(table.classes), mark), 0)
    # Marks are sorted by class within the run after a letter; a run ends where its text ends.
    run = tf.cumsum(tf.cast(~is_mark, tf.int64)) + of_text
    order = tf.argsort(run * CLASSES + classes, stable=True)
    ordered = tf.RaggedTensor.from_value_rowids(
        tf.gather(folded, order), of_text, nrows=decoded.nrows(), validate=False
    )
    return tf.strings.unicode_encode(ordered, "UTF-8")


def _find(codes: tf.Tensor, table: NDArray[np.int32]) -> tuple[tf.Tensor, tf.Tensor]:
    """Find characters in a sorted table: [characters] int32 positions, and whether each is in it."""
    place = tf.minimum(tf.searchsorted(tf.constant(table), codes), len(table) - 1)
    return place, tf.gather(tf.constant(table), place) == codes
