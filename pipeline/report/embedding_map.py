"""A map of the item embeddings: on a plane, items are near each other if they are in the space that retrieval searches."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, TITLE, FeatureSpec, IdFeature, IdsFeature

MOST_ITEMS = 1500
FEWEST_ITEMS = 10
PERPLEXITY = 30
MOST_GROUPS = 7
OTHERS, NONE = "others", "none"


@dataclass(frozen=True)
class Spot:
    """An item on the map.

    x: from the left, as a percentage.
    y: from the top, as a percentage.
    item: its id.
    title: its title in the catalogue, or empty.
    group: the number of its group.
    share: its interactions as a share of the most frequent item's; 0 if its id is not in the vocabulary.
    """

    x: float
    y: float
    item: str
    title: str
    group: int
    share: float


@dataclass(frozen=True)
class ItemMap:
    """The map.

    Attributes:
        feature: the feature that defines the groups; empty if there is none.
        groups: their names, the largest first; then `others` and `none`, if needed.
        spots: the items shown.
        items: the number of items in the index.
    """

    feature: str
    groups: tuple[str, ...]
    spots: tuple[Spot, ...]
    items: int


def read_map(index: Path, catalogue: Path, analysis: Path, spec: FeatureSpec) -> ItemMap:
    """Lay out a sample of the items of an index.

    Args:
        index: the folder of an index.
        catalogue: the folder of the raw catalogue examples.
        analysis: the folder of an analysis.
        spec: the feature specification.

    Raises:
        UserError: there are too few items, or one of the folders lacks its content.
    """
    from components.analysis import files as analysis_files
    from components.indexer import files as index_files

    items = index_files.read(str(index))
    if len(items.ids) < FEWEST_ITEMS:
        raise UserError(f"A map needs at least {FEWEST_ITEMS} items; the index has {len(items.ids)}.")
    chosen = np.sort(np.random.default_rng(0).permutation(len(items.ids))[:MOST_ITEMS])
    ids = [items.ids[position] for position in chosen]
    feature = group_feature(spec)
    titles, values = _described(catalogue, ids, feature)
    numbers, groups = grouped(values)
    counts = dict.fromkeys(ids, 0.0)
    if table := spec.id_table(spec.item, spec.catalogue.item):
        vocabulary = analysis_files.read_vocabulary(str(analysis), table)
        counts.update(vocabulary["count"].reindex(ids, fill_value=0).astype(float))
    most = max(counts.values()) or 1.0
    places = lay_out(items.embeddings[chosen])
    spots = [
        Spot(x, y, item.decode(errors="replace"), title, group, round(counts[item] / most, 4))
        for (x, y), item, title, group in zip(places.tolist(), ids, titles, numbers, strict=True)
    ]
    return ItemMap(feature, groups if feature else (), tuple(spots), len(items.ids))


def lay_out(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute positions on a plane that keep neighbours together as far as possible (t-SNE).

    Args:
        embeddings: [items, width] unit vectors.

    Returns:
        [items, 2], percentages of the map's sides.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, (len(embeddings) - 1) / 3)
    start = _start(embeddings)
    with threadpool_limits(1):  # more threads would mostly busy-wait for each other
        points = TSNE(2, perplexity=perplexity, init=start, random_state=0).fit_transform(embeddings)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.round(2 + 96 * (points - low) / np.where(high > low, high - low, 1.0), 2).astype(np.float64)


def _start(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Project the embeddings to their two principal directions, scaled down as t-SNE needs it.

    Its own `init="pca"` divides by a deviation, which may be zero; and it fails on many items at one point.
    """
    left, sizes, _ = np.linalg.svd(embeddings - embeddings.mean(axis=0), full_matrices=False)
    main = left[:, :2] * sizes[:2]
    apart = np.random.default_rng(0).normal(0.0, 1e-6, main.shape)
    return (1e-4 * main / max(main.std(), 1e-6) + apart).astype(np.float32)


def group_feature(spec: FeatureSpec) -> str:
    """Find the first feature of the item tower that describes an item but is not its id; empty if there is none."""
    for name, feature in spec.item.items():
        if isinstance(feature, IdsFeature | IdFeature) and not _is_item(name, feature, spec):
            return name
    return ""


def grouped(values: list[str]) -> tuple[list[int], tuple[str, ...]]:
    """Return the group of each value, and the names of the groups: the most frequent values, others, and none."""
    frequent = [value for value, _ in Counter(filter(None, values)).most_common()]
    names = frequent[:MOST_GROUPS]
    rest = [OTHERS] * (len(frequent) > MOST_GROUPS) + [NONE] * ("" in values)
    numbers = {value: number for number, value in enumerate(names)}
    of_rest = {name: len(names) + number for number, name in enumerate(rest)}
    return [numbers.get(value, of_rest.get(OTHERS if value else NONE, 0)) for value in values], (*names, *rest)


def _described(catalogue: Path, ids: list[bytes], feature: str) -> tuple[list[str], list[str]]:
    """Return the titles of items and their first value of a feature; empty if missing."""
    import tensorflow as tf

    from components.records import read_records

    titles, values = dict.fromkeys(ids, ""), dict.fromkeys(ids, "")
    files = sorted(str(path) for path in catalogue.glob("Split-*/*"))
    for serialized in read_records(files):
        held = tf.train.Example.FromString(serialized).features.feature
        item = held[CANDIDATE_ID].bytes_list.value[0]
        if item in titles:
            titles[item], values[item] = _first(held, TITLE), _first(held, feature)
    return list(titles.values()), list(values.values())


def _first(features: Any, name: str) -> str:
    held = features[name].bytes_list.value if name in features else []
    return held[0].decode(errors="replace") if held else ""


def _is_item(name: str, feature: IdFeature | IdsFeature, spec: FeatureSpec) -> bool:
    return (feature.column or name) == spec.catalogue.item
