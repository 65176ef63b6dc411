"""Ranks items as if they had just arrived: a share of the catalogue, embedded by their features without the id."""

from collections.abc import Iterator

import tensorflow as tf

from components import digests
from components.indexer.embedding import Item, candidate_id
from schemas.features import FeatureSpec


class AsNew:
    """Selects the drawn items of a catalogue's serialised examples, and gives each an id that no vocabulary has.

    Args:
        spec: the dataset's features.
        span: the day, in days since 1970-01-01.
        share: the share of the catalogue to draw.
    """

    def __init__(self, spec: FeatureSpec, span: int, share: float) -> None:
        self._features = spec.id_features
        self._span = span
        self._share = share

    def __call__(self, serialized: bytes) -> Iterator[Item]:
        """Yield the item's own id, and its example with the new id, if it is drawn."""
        item = candidate_id(serialized)
        if not digests.is_drawn(item, self._span, self._share):
            return
        example = tf.train.Example.FromString(serialized)
        unseen = digests.digest(item, 16, self._span).hex().encode()
        for name in self._features:
            values = example.features.feature[name].bytes_list.value
            values[:] = [unseen] * len(values)
        yield item, example.SerializeToString(deterministic=True)
