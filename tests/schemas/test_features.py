import re
from pathlib import Path

import pytest
from tensorflow_metadata.proto.v0 import schema_pb2

from schemas import contract, features
from schemas.errors import UserError

MOVIELENS = Path(features.__file__).parents[1] / "movielens"


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = (MOVIELENS / features.FILE_NAME).read_text()
    assert old in text
    (tmp_path / features.FILE_NAME).write_text(text.replace(old, new))
    return tmp_path


def test_the_seed_the_history_and_the_candidate_share_one_table() -> None:
    spec = features.load(MOVIELENS)
    history, seed, candidate = spec.query["history"], spec.query["seed"], spec.item["movie_id"]
    assert isinstance(history, features.HistoryFeature)
    assert isinstance(seed, features.IdFeature) and isinstance(candidate, features.IdFeature)
    assert {history.table, seed.table, candidate.table} == {"film"}
    # The history repeats other rows' candidates, so only the candidate counts towards the vocabulary.
    assert spec.counted_features("film") == ["movie_id"]


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("kind: number}\n  gender", "kind: numbre}\n  gender", "33", "numbre"),
        ("table: gender}", "table: sex}", "34", "'sex' is not declared"),
        ("last: 20", "last: 0", "36", "greater than 0"),
        ("last: 20", "lst: 20", "36", "not a known key"),
        ("hash_buckets: 8\n    masked", "hash_bucket: 8\n    masked", "1", "hash_buckets: is missing"),
        ("  year: {kind: number}", "  age: {kind: number}", "43", "has a feature age too"),
        ("  year: {kind: number}", "  reward: {kind: number}", "43", "taken by the pipeline"),
        # The pipeline's own columns begin with an underscore and are not written.
        ("  year: {kind: number}", "  _year: {kind: number}", "43", "starting with a letter"),
        ("  year: {kind: number}", "  class: {kind: number}", "43", "not a Python keyword"),
        ("  year: {kind: number}", "  année: {kind: number}", "43", "the letters a to z"),
        ("  hour: {width: 4", "  an hour: {width: 4", "28", "the letters a to z"),
        (
            "derive: hour_of_day}",
            "derive: hour_of_day}\n  x: {kind: looked_up, of: hour, feature: year}",
            "39",
            "ids are items",
        ),
        (
            "derive: hour_of_day}",
            "derive: hour_of_day}\n  x: {kind: looked_up, of: seed, feature: age}",
            "39",
            "a feature of the item",
        ),
        (
            "derive: hour_of_day}",
            "derive: hour_of_day}\n  x: {kind: looked_up, of: seed, feature: year}\n  seed_fingerprint: {kind: number}",
            "40",
            "taken by the pipeline",
        ),
        ("negatives: false}", "encoder: attention}\n  history_ages: {kind: number}", "37", "taken by the pipeline"),
        ("last: 20", "last: 20, encoder: sum", "36", "'mean', 'attention' or 'none'"),
        ("negatives: false", "encoder: none", "36", "nothing uses this history"),
        (
            "negatives: false}",
            "negatives: false}\n  history_fingerprint: {kind: number}",
            "37",
            "taken by the pipeline",
        ),
        ("last: 20", "last: 20, events: [view]", "36", "needs `interactions.event`"),
        (
            "negatives: false}",
            "negatives: false}\n  liked: {kind: history, table: film, last: 5}",
            "37",
            "history is derived already",
        ),
        ("  year: {kind: number}", "  year: {kind: looked_up, of: seed, feature: genres}", "43", "looked_up"),
        ("  year: {kind: number}", "  sound: {kind: vector}", "43", "size: is missing"),
        (
            "  year: {kind: number}",
            "  name: {kind: text, table: genre, words: false, ngrams: []}",
            "43",
            "found neither",
        ),
        ("  year: {kind: number}", "  name: {kind: text, table: film}", "43", "a table without `vocabulary`"),
        (
            "  year: {kind: number}",
            "  name: {kind: text, table: genre, ngrams: [0]}",
            "43",
            "greater than or equal to 1",
        ),
        ("kind: number}}  # what", "kind: numbr}}  # what", "13", "filters.year.kind"),
        (
            "year: {kind: number}}  # what",
            "year: {kind: id}}  # what",
            "13",
            "the item's feature of this name is {kind: number}",
        ),
        (
            "{genres: {kind: ids}",
            "{genres: {kind: ids, separator: ' '}",
            "13",
            "separator: '|'}; give the filter the same declaration",
        ),
        ("{genres: {kind: ids}", "{exclude: {kind: ids}", "13", "taken by the pipeline"),
        ("{genres: {kind: ids}", "{_genres: {kind: ids}", "13", "starting with a letter"),
    ],
)
def test_a_bad_specification_is_refused_with_line_and_reason(
    tmp_path: Path, old: str, new: str, line: str, reason: str
) -> None:
    with pytest.raises(UserError) as refusal:
        features.load(edited(tmp_path, old, new))
    assert reason in str(refusal.value)
    assert f"features.yaml:{line}" in str(refusal.value)


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ("[buy], column: seen", "not both"),
        ("[sale]", "a weight in `interactions.event` (view, buy), received 'sale'"),
        ("[buy, view]", "'view' has weight 0, so it is in no history"),
    ],
)
def test_invalid_histories_of_events_are_rejected(tmp_path: Path, events: str, reason: str) -> None:
    folder = edited(tmp_path, "last: 20", f"last: 20, events: {events}")
    path = folder / "features.yaml"
    event = "  reward: reward\n  event: {column: kind, weights: {view: 0, buy: 1}}\n"
    path.write_text(path.read_text().replace("  reward: reward\n", event, 1))
    with pytest.raises(UserError) as refusal:
        features.load(folder)
    assert reason in str(refusal.value) and "query.history" in str(refusal.value)


@pytest.mark.parametrize(
    ("table", "masked", "reason"),
    [
        ("genre: {width: 8, ", "0.1", "tables.genre.masked: needs a vocabulary"),
        ("film: {width: 32, vocabulary: {}, ", "1.0", "tables.film.masked: input should be less than 1"),
        # Nothing but the genres of an item, which are a list, feeds it.
        ("genre: {width: 8, vocabulary: {}, ", "0.1", "tables.genre.masked: no feature of kind `id`"),
    ],
)
def test_a_table_that_cannot_be_masked_is_refused(tmp_path: Path, table: str, masked: str, reason: str) -> None:
    name = table.partition(":")[0]
    text = (MOVIELENS / features.FILE_NAME).read_text()
    declared = re.compile(rf"^  {name}:(\n    .*)+|^  {name}: .*hash_buckets.*", re.MULTILINE)
    text, edits = declared.subn(f"  {table}hash_buckets: 8, masked: {masked}}}", text)
    assert edits == 1
    (tmp_path / features.FILE_NAME).write_text(text)
    with pytest.raises(UserError) as refusal:
        features.load(tmp_path)
    assert reason in str(refusal.value)


def test_the_items_own_ids_are_masked_unless_they_have_no_vocabulary() -> None:
    spec = features.load(MOVIELENS)
    # The person, the genre and the others only where `masked` says so; the seed and the history are derived.
    assert spec.masked_tables == {"film": 0.2}
    assert spec.masked_features == {"movie_id": "film"}
    tables = {name: table.model_dump() for name, table in spec.tables.items()}

    def changed(**declared: dict[str, object]) -> features.FeatureSpec:
        return features.FeatureSpec.model_validate({**spec.model_dump(), "tables": tables | declared})

    undeclared = {key: value for key, value in tables["film"].items() if key != "masked"}
    assert changed(film=undeclared).masked_tables == {"film": features.MASKED_ITEMS}
    assert changed(film={"width": 32, "hash_buckets": 8}).masked_tables == {}
    assert changed(film=tables["film"] | {"masked": 0.0}).masked_tables == {}
    both = changed(film=tables["film"] | {"masked": 0.3}, person=tables["person"] | {"masked": 0.2})
    assert both.masked_tables == {"film": 0.3, "person": 0.2}
    assert both.masked_features == {"movie_id": "film", "user_id": "person"}


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / features.FILE_NAME).write_text("interactions: {user: u}\ninteractions: {user: v}\n")
    with pytest.raises(UserError, match=r"features.yaml:2: interactions is given twice \(first in line 1\)"):
        features.load(tmp_path)


def test_the_drafted_schema_follows_the_specification() -> None:
    drafted = contract.draft(features.load(MOVIELENS))
    by_name = {feature.name: feature for feature in drafted.interactions.feature}
    assert by_name["reward"].float_domain.max == 1.0
    assert by_name["user_id"].value_count.max == 1
    assert not by_name["history"].value_count.HasField("max")
    assert {feature.name for feature in drafted.catalogue.feature} == {
        "candidate_id", "title", "movie_id", "genres", "year", "released",
    }  # fmt: skip


def test_filters_are_columns_of_the_catalogues_schema_unless_they_are_features_of_the_item(tmp_path: Path) -> None:
    filters = "filters: {genres: {kind: ids}, lands: {kind: ids, column: countries}, rights: {kind: id}, stock: {kind: number}}"
    spec = features.load(edited(tmp_path, "filters: {genres: {kind: ids}, year: {kind: number}}", filters))
    drafted = contract.draft(spec)
    there = {
        each.name: (schema_pb2.FeatureType.Name(each.type), each.value_count.max) for each in drafted.catalogue.feature
    }
    assert (there["lands"], there["rights"], there["stock"]) == (("BYTES", 0), ("BYTES", 1), ("FLOAT", 1))
    assert [each.name for each in drafted.catalogue.feature].count("genres") == 1
    assert {"lands", "rights", "stock"}.isdisjoint(each.name for each in drafted.interactions.feature)


def test_vectors_and_texts_in_the_drafted_schema_and_in_no_vocabulary(tmp_path: Path) -> None:
    new = "  sound: {kind: vector, size: 3}\n  name: {kind: text, table: genre}"
    spec = features.load(edited(tmp_path, "  year: {kind: number}", new))
    sound, name = (feature for feature in contract.draft(spec).catalogue.feature if feature.name in ("sound", "name"))
    assert (sound.type, sound.value_count.min, sound.value_count.max) == (schema_pb2.FLOAT, 3, 3)
    assert (name.type, name.value_count.max) == (schema_pb2.BYTES, 1)
    assert spec.counted_features("genre") == ["genres"]
    assert not {"sound", "name"} & set(spec.of_interactions)


def test_a_schema_that_disagrees_with_the_specification_is_refused(tmp_path: Path) -> None:
    spec = features.load(MOVIELENS)
    contract.write_drafts(tmp_path, spec)
    path = tmp_path / contract.CATALOGUE_FILE
    path.write_text(path.read_text().replace('name: "year"', 'name: "yaer"'))
    with pytest.raises(UserError, match=r"catalogue.pbtxt: lacks the feature year"):
        contract.load(tmp_path, spec)


def test_a_bonus_needs_negatives_and_a_table_needs_a_feature_that_is_seen(tmp_path: Path) -> None:
    declared = features.load(edited(tmp_path, "last: 20", "last: 20")).model_dump()
    bought = {"kind": "history", "table": "film", "last": 5, "column": "bought", "repeats": True}
    with pytest.raises(ValueError, match=r"`repeats: true` \(bought\) needs negatives"):
        features.FeatureSpec.model_validate({**declared, "query": {**declared["query"], "bought": bought}})
    unseen = {**declared["query"]["history"], "table": "past", "encoder": "none"}
    tables = {**declared["tables"], "past": {"width": 4, "hash_buckets": 8}}
    with pytest.raises(ValueError, match="feeds no feature"):
        features.FeatureSpec.model_validate(
            {**declared, "tables": tables, "query": {**declared["query"], "history": unseen}}
        )


def test_a_tower_sees_something(tmp_path: Path) -> None:
    spec = features.load(edited(tmp_path, "last: 20", "last: 20, encoder: none"))
    assert "history" in spec.raw_query and "history" not in spec.query_inputs
    declared = spec.model_dump()
    alone = {
        name: {key: declared[name][key] for key in keys}
        for name, keys in (("query", ["history"]), ("tables", ["film"]))
    }
    with pytest.raises(ValueError, match="expected a feature that the tower sees"):
        features.FeatureSpec.model_validate({**declared, **alone, "item": {"movie_id": declared["item"]["movie_id"]}})


def test_ages_are_drafted_and_complete_a_schema_that_was_written_before(tmp_path: Path) -> None:
    spec = features.load(edited(tmp_path, "last: 20", "last: 20, encoder: attention"))
    (ages,) = (each for each in contract.load(MOVIELENS, spec).interactions.feature if each.name == "history_ages")
    assert (ages.type, ages.presence.min_fraction) == (schema_pb2.FLOAT, 0.0) and not ages.value_count.HasField("max")
    history = spec.query["history"].model_copy(update={"column": "seen"})
    logged = spec.model_copy(update={"query": {"history": history}})
    assert logged.aged_histories == []  # when the items of a logged history were taken is not known
