"""Top-K items for a user, and items similar to an item, from a server or from the pushed models.

Without a server the newest version's SavedModels are loaded for one question; neither TFX nor all of TensorFlow is
imported.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.example_gen.split_names import BLOCKED_SPLIT, CATALOGUE_SPLIT
from components.records import read_records
from ndr_client import Client, Found
from ndr_client.served import EXCLUDE, RETRIEVER, WHERE, names_of
from pipeline import origin
from pipeline.asking import one_question
from pipeline.asking import server as asking
from pipeline.asking.pushed_version import PushedVersion
from pipeline.config import Config
from pipeline.records import Records, connection, has_begun
from pipeline.versions import pushes
from schemas.errors import UserError
from schemas.features import (
    AGES_SUFFIX,
    CANDIDATE_ID,
    EVENT_KIND,
    QUERY_ID,
    TIMESTAMP,
    TITLE,
    FeatureSpec,
    HistoryFeature,
    IdFeature,
)

MICROSECONDS = 1_000_000  # a second


@dataclass(frozen=True)
class Question:
    """How many items are asked for, and of whom.

    Attributes:
        k: the number of items.
        where: the conditions that items must meet; see `components.indexer.filters`.
        label: the label of the version to ask; None for the newest.
        server: HOST:PORT of a gRPC server, or of the server of each shard, separated by commas; by default the SavedModels of
            the push folder are loaded for this one question.
        authorities: see `pipeline.asking.server.client`.
    """

    k: int
    where: Sequence[str] = ()
    label: str | None = None
    server: str | None = None
    authorities: Path | None = None


@dataclass(frozen=True)
class Recommendation:
    """An item and its score.

    Attributes:
        item: its id.
        title: its title in the catalogue, or an empty string.
        score: the inner product of the unit vectors, in [-1, 1], plus the bonus of the history.
    """

    item: str
    title: str
    score: float


@dataclass(frozen=True)
class Answer:
    """The recommendations to a user.

    Attributes:
        version: the version that answered.
        known: whether the user has an interaction in the window of the version's run.
        history: titles (or ids) of the newest items of the user's history, oldest first.
        items: the recommendations, best first, without items of histories, except of histories whose items are taken again.
    """

    version: int
    known: bool
    history: list[str]
    items: list[Recommendation]


@dataclass(frozen=True)
class Alike:
    """The items similar to an item.

    Attributes:
        version: the version that answered.
        title: the item's title, or its id.
        items: the similar items, best first, without the item itself.
    """

    version: int
    title: str
    items: list[Recommendation]


def recommend(config: Config, user: str, question: Question) -> Answer:
    """Recommend items from the catalogue of the newest pushed version's run.

    A user whom the run's window has never seen gets an answer too: then the query has an id from an OOV bucket, the user's
    features from the users' table, no history, and the current hour.

    Args:
        config: the pipeline's configuration.
        user: the user's id.
        question: how many items, and of whom they are asked.

    Raises:
        UserError: nothing was pushed yet, or the server refuses.
        PassingError: the server cannot be reached.
    """
    spec, uris, shards = _newest(config)
    titles = _titles(uris["catalogue"])
    query, known = _query(spec, user, uris["interactions"], uris.get("users"))
    # A model that learnt how often items are taken again decides whether to recommend them again.
    left_out = [name for name, f in spec.query.items() if isinstance(f, HistoryFeature) and not f.repeats]
    past = {item for name in left_out for item in _values(query, name)}
    _set(query, EXCLUDE, sorted(past))
    _set(query, WHERE, [condition.encode() for condition in question.where])
    with _asked(config, question, shards) as asked:
        answer = asked.retrieve([query.SerializeToString()], question.k, version=question.label)
    shown = _values(query, spec.history[0]) if spec.history else []
    history = [titles.get(item) or item.decode(errors="replace") for item in shown]
    return Answer(answer.version, known, history, _recommended(answer, titles))


def similar(config: Config, item: str, question: Question) -> Alike:
    """Find the items most similar to an item of the newest pushed version's catalogue, which may be blocked.

    Args:
        config: the pipeline's configuration.
        item: the item's id.
        question: how many items, and of whom they are asked.

    Raises:
        UserError: the catalogue has no such item; otherwise as `recommend`.
        PassingError: the server cannot be reached.
    """
    _, uris, shards = _newest(config)
    id_ = item.encode()
    some = (
        serialized
        for split in (CATALOGUE_SPLIT, BLOCKED_SPLIT)
        for serialized in _read(uris["catalogue"], split)
        if id_ in serialized
    )
    example = next(
        (serialized for serialized in some if _values(one_question.new_example(serialized), CANDIDATE_ID) == [id_]),
        None,
    )
    if example is None:
        raise UserError(f"--item: expected an item of the catalogue in {uris['catalogue']}, received {item!r}.")
    titles = _titles(uris["catalogue"])
    conditions = [list(question.where)] if question.where else None
    with _asked(config, question, shards) as asked:
        answer = asked.similar([example], [id_], question.k, where=conditions, version=question.label)
    return Alike(answer.version, titles.get(id_) or item, _recommended(answer, titles))


def _newest(config: Config) -> tuple[FeatureSpec, Mapping[str, str], int]:
    """Return the features, the URIs of the examples that the newest version's run read, and the number of its retrievers.

    Raises:
        UserError: nothing was pushed yet, or an artifact of the version is gone.
    """
    newest = next(reversed(pushes.manifests(config.serving)), None)
    if newest is None:
        raise UserError(f"Nothing was pushed to {config.serving} yet. First: ndr run --config ... --date ...")
    spec = config.feature_spec()
    gone = f"Artifacts of version {newest.version} are gone. Run its day, {newest.day}, again."
    if not has_begun(config):
        raise UserError(gone)
    records = Records(connection(config))
    origin.check_root(config, records)
    uris = {**records.example_uris(newest.trained_by), **records.example_uris(newest.run)}
    folders = {component: f"{config.serving}/{place}" for component, place in newest.parts.items()}
    if not all(_exists(place) for place in (*uris.values(), *folders.values())):
        raise UserError(gone)
    return spec, uris, len(names_of(RETRIEVER, folders))


def _asked(config: Config, question: Question, shards: int) -> AbstractContextManager[Client | PushedVersion]:
    """Return a server's client, or the pushed version, which has the same two methods."""
    if question.server:
        return asking.client(config, question.server, question.authorities, shards)
    return nullcontext(PushedVersion(config.serving, question.label))


def _exists(place: str) -> bool:
    """Return whether a folder exists; an address is left to the server."""
    return "://" in place or Path(place).exists()


def _titles(uri: str) -> dict[bytes, str]:
    catalogue = (one_question.new_example(serialized) for serialized in _read(uri))
    return {_values(e, CANDIDATE_ID)[0]: (_values(e, TITLE) or [b""])[0].decode() for e in catalogue}


def _recommended(answer: Found, titles: Mapping[bytes, str]) -> list[Recommendation]:
    """Convert the answer to the one query."""
    best = zip(answer.item_ids[0], answer.scores[0], strict=True)
    return [Recommendation(item.decode(), titles.get(item, ""), float(score)) for item, score in best if item]


def interactions_of(config: Config, version: int) -> str | None:
    """Return the folder of the interactions that a pushed version's run read; None if they are gone."""
    from components.pusher.versions import PushFolder  # imports TFX

    manifest = next((pushed for pushed in PushFolder(config.serving).manifests() if pushed.version == version), None)
    if manifest is None or not has_begun(config):
        return None
    uri = Records(connection(config)).example_uris(manifest.trained_by).get("interactions")
    return uri if uri and Path(uri).exists() else None


def _query(spec: FeatureSpec, user: str, interactions: str, users: str | None) -> tuple[Any, bool]:
    """Return the user's newest features, with a history up to and including the newest interaction; and whether it has any."""
    mine = _of(user, interactions)
    mine.sort(key=lambda example: example.features.feature[TIMESTAMP].int64_list.value[0])
    now = datetime.now(UTC)
    derived: dict[str, list[bytes]] = {"hour_of_day": [b"%d" % now.hour], "day_of_week": [b"%d" % now.weekday()]}
    query = one_question.new_example()
    if mine:
        query.CopyFrom(mine[-1])
        newest_time = mine[-1].features.feature[TIMESTAMP].int64_list.value[0]
        since = now.timestamp() - newest_time / MICROSECONDS
        newest = [e for e in mine if e.features.feature[TIMESTAMP].int64_list.value[0] == newest_time]
        for name, feature in spec.derived_histories.items():
            wanted = [kind.encode() for kind in feature.events]
            seen_last = [
                _values(e, CANDIDATE_ID)[0] for e in newest if not wanted or _values(e, EVENT_KIND)[0] in wanted
            ]
            earlier = _values(query, name)
            history = [*earlier, *seen_last][-feature.last :]
            _set(query, name, history)
            if feature.has_ages:
                ages = query.features.feature[name + AGES_SUFFIX].float_list.value
                known_ages = ages if len(ages) == len(earlier) else [float("nan")] * len(earlier)
                ages[:] = [since + age for age in (*known_ages, *[0.0] * len(seen_last))][-feature.last :]
            derived.setdefault("last_in_history", history[-1:])
    else:
        for example in _of(user, users) if users else []:
            query.CopyFrom(example)
        columns: Mapping[str, str] = {
            n: getattr(f, "column", None) or n for n, f in spec.raw_query.items() if not isinstance(f, HistoryFeature)
        }
        for name, column in columns.items():
            if column == spec.interactions.user:
                _set(query, name, [user.encode()])
    for name, query_feature in spec.query.items():
        if isinstance(query_feature, IdFeature) and query_feature.derive:
            _set(query, name, derived.get(query_feature.derive, []))
    return query, bool(mine)


def _of(user: str, uri: str) -> list[Any]:
    """Read a user's examples; parses only those that contain the id somewhere, because parsing takes most of the time."""
    id_ = user.encode()
    some = (one_question.new_example(serialized) for serialized in _read(uri) if id_ in serialized)
    return [example for example in some if _values(example, QUERY_ID) == [id_]]


def _read(uri: str, split: str = "*") -> Iterator[bytes]:
    return read_records(sorted(map(str, Path(uri).glob(f"Split-{split}/*"))))


def _values(example: Any, name: str) -> list[bytes]:
    return list(example.features.feature[name].bytes_list.value) if name in example.features.feature else []


def _set(example: Any, name: str, values: list[bytes]) -> None:
    example.features.feature[name].bytes_list.value[:] = values
