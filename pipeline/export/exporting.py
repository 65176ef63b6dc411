"""Exports a pushed version to a store: written whole, compared with exact search, then made live at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.indexer.tuning import TIE, exact_scores
from components.pusher import labels
from components.pusher.manifest import Manifest
from components.pusher.versions import PushFolder
from ndr_client.client import Version
from pipeline.config import Config
from pipeline.export import items as items_of
from pipeline.export.store import Answers, Exported, Items, Store
from pipeline.export.stores import Name, opened
from schemas.errors import PassingError, UserError

ROUNDING = 1e-4  # by which a score may differ from the exact inner product: stores add up in other orders


@dataclass(frozen=True)
class Outcome:
    """What an export did.

    Attributes:
        place: the store in words.
        live: the version that is live now.
        before: the version that was live before; None for none.
        is_written: whether its items were written; else they were in the store already.
        recall: the share of the exact first items that its queries found; None if they were not asked: the version was live
            already, or only the store still has it.
        removed: the versions that retention removed.
        held: the versions that it would have removed, but a reader holds.
    """

    place: str
    live: Exported
    before: int | None
    is_written: bool
    recall: float | None
    removed: tuple[int, ...]
    held: tuple[int, ...]


def export(config: Config, name: Name, version: Version | None, say: Callable[[str], None]) -> Outcome:
    """Export a version.

    Args:
        config: the pipeline's configuration.
        name: the store.
        version: its number or label; None for the live one.
        say: called with a sentence before each longer step.

    Raises:
        UserError: there is no such version, or the store refuses, or its answers are not those of exact search: readers of the
            store see what they saw before.
        PassingError: the store cannot be reached, another export writes to it, or another version was pushed meanwhile.
    """
    folder = PushFolder(config.serving)
    number, manifest = _chosen(folder, version)
    with opened(config, name, writes=True) as store:
        exports = store.exported()
        before = next((exported for exported in exports if exported.is_live), None)
        recall, is_written = None, False
        if manifest is None:
            key = _stored(folder, store, exports, number)
        else:
            key = items_of.key_of(folder, manifest)
        if manifest is not None and (before is None or (before.key, before.version) != (key, number)):
            items = items_of.read(folder, manifest)
            is_written = key not in {exported.key for exported in exports}
            if is_written:
                say(f"writes {len(items.ids):,} items")
                store.put(items)
            say(f"compares {config.export.queries:,} queries with exact search")
            recall = _checked(store, items, config)
            if version is None and folder.manifests()[-1].version != number:
                raise PassingError(f"Another version than {number} went live meanwhile. Export again.")
        store.flip(key, number)
        removed, held = _retain(store, config.export.keep)
        live = next(exported for exported in store.exported() if exported.is_live)
        return Outcome(
            store.place, live, before.version if before else None, is_written, recall, tuple(removed), tuple(held)
        )


def questions(embeddings: NDArray[np.float32], number: int, seed: int) -> NDArray[np.float32]:
    """Return [number, width] queries among the items: each a unit vector half-way between two drawn ones.

    Args:
        embeddings: [items, width] unit vectors.
        number: of queries.
        seed: of the draw.
    """
    first, second = np.random.default_rng(seed).integers(0, len(embeddings), (2, number))
    between = embeddings[first] + embeddings[second]
    lengths = np.linalg.norm(between, axis=1, keepdims=True)
    return np.where(lengths > ROUNDING, between / np.maximum(lengths, ROUNDING), embeddings[first])


class Agreement(NamedTuple):
    """How a store's answers compare with exact search.

    Attributes:
        recall: the mean share of the exact first items that were found.
        wrong: a sentence about an answer that cannot be; empty for none.
    """

    recall: float
    wrong: str


def agreement(items: Items, queries: NDArray[np.float32], k: int, answers: Answers) -> Agreement:
    """Compare answers with exact search. Among items tied for the last place any will do.

    Args:
        items: what is searched.
        queries: [queries, width].
        k: the number of items asked for, at most those there are.
        answers: of the queries.
    """
    exact = exact_scores(items.embeddings, queries, k)
    shares = np.zeros(len(queries))
    for number, (ids, scores) in enumerate(answers):
        rows = pc.index_in(pa.array(ids, pa.string()), value_set=items.ids).fill_null(-1).to_numpy()
        if (rows < 0).any() or len(np.unique(rows)) < len(rows):
            return Agreement(
                0.0, f"query {number} found {ids[:3]} ..., which has an item twice, or one that was not exported"
            )
        true = items.embeddings[rows] @ queries[number]
        if len(rows) and np.abs(true - scores).max() > ROUNDING:
            worst = int(np.abs(true - scores).argmax())
            return Agreement(
                0.0, f"query {number} gave {ids[worst]!r} the score {scores[worst]:.4f}, which is {true[worst]:.4f}"
            )
        shares[number] = np.count_nonzero(true >= exact[number, -1] - TIE) / k
    return Agreement(float(shares.mean()), "")


def _chosen(folder: PushFolder, version: Version | None) -> tuple[int, Manifest | None]:
    """Return number and manifest of the version to export; None if it is not in the push folder."""
    manifests = folder.manifests()
    if not manifests:
        raise UserError(f"Nothing was pushed to {folder.root} yet. First: ndr run --config ... --date ...")
    if version is None:
        return manifests[-1].version, manifests[-1]
    number = labels.resolve(folder, version) if isinstance(version, str) else version
    return number, next((manifest for manifest in manifests if manifest.version == number), None)


def _stored(folder: PushFolder, store: Store, exports: list[Exported], version: int) -> str:
    """Return the key of a version that only the store still has."""
    for exported in exports:
        if exported.version == version:
            return exported.key
    pushed = ", ".join(str(manifest.version) for manifest in folder.manifests())
    stored = ", ".join(str(exported.version) for exported in exports) or "none"
    raise UserError(
        f"Expected a version of the push folder or of {store.place}, received {version}. Pushed: {pushed}. Stored: {stored}."
    )


def _checked(store: Store, items: Items, config: Config) -> float:
    """Ask the store for items that exact search finds, and return its recall.

    Raises:
        UserError: the answers are wrong, or too few of the first items were found.
    """
    k = min(config.indexer.recall_at, len(items.ids))
    queries = questions(items.embeddings, config.export.queries, items.version % 2**32)
    comparison = agreement(items, queries, k, store.search(items.key, queries, k))
    expected = store.minimum_recall(items.key)
    if comparison.wrong or comparison.recall < expected:
        reason = (
            comparison.wrong or f"expected {expected:g} of the exact first {k} items, found {comparison.recall:.4f}"
        )
        raise UserError(
            f"{store.place}: version {items.version} does not answer as exact search does, over {len(queries):,} queries: "
            f"{reason}. It was not made live. {store.advice(items.key)}"
        )
    return comparison.recall


def _retain(store: Store, keep: int) -> tuple[list[int], list[int]]:
    """Remove all but the newest versions and the live one."""
    exports = store.exported()
    removed: list[int] = []
    held: list[int] = []
    for exported in exports[:-keep]:
        if not exported.is_live:
            (removed if store.remove(exported.key) else held).append(exported.version)
    return removed, held
