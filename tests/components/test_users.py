"""The users' table: the newest that is not after the day, joined by the user's id."""

import json
from pathlib import Path
from typing import Any

import pytest
from tfx.types import standard_artifacts

from components.example_gen.catalogue import CatalogueExecutor
from components.example_gen.day_driver import Request
from components.example_gen.finish_interactions import USER_UNKNOWN
from components.example_gen.interactions import InteractionExecutor
from components.example_gen.settings import ExampleGenSettings
from components.example_gen.users import UserExecutor
from schemas import features
from schemas.errors import UserError
from schemas.features import FeatureSpec
from tests.components.test_example_gen import DAY, GOOD, SPEC, read

declared = SPEC.model_dump()
declared["users"] = {"user": "id", "features": ["age", "likes", "taste"]}
declared["query"]["likes"] = {"kind": "ids", "table": "other", "max_values": 2, "weights": "how"}
declared["query"]["taste"] = {"kind": "vector", "size": 2}
OF_USERS = FeatureSpec.model_validate(declared)
HEADER = "user,sku,at,liked"
ROWS = [row.rpartition(",")[0] for row in GOOD]
TABLE = "id,age,likes,how,taste\nu,30,x|y,1|2,0|1\nw,,,,\nw,5,x,1,\nx,old,,,\n"


def ingest(folder: Path, **settings: Any) -> tuple[list[dict[str, list[Any]]], Any, Any]:
    """The training examples, and the accounting of the users and of the interactions."""
    given = ExampleGenSettings.model_validate(
        {
            "interactions": {"path": f"{folder}/log/{{YYYY}}-{{MM}}-{{DD}}", "format": "csv"},
            "catalogue": {"path": f"{folder}/catalogue.csv", "format": "csv"},
            "users": {"path": f"{folder}/users/{{YYYY}}-{{MM}}-{{DD}}.csv", "format": "csv"},
            "split": {"by": "time", "hours": 1},
            "max_dropped_share": 1.0,
            **settings,
        }
    )
    (folder / "catalogue.csv").write_text("sku,name,tags,tag_weights\nA,Ant,,\nB,Bee,,\nC,Cat,,\n")
    (folder / "log" / DAY.isoformat()).mkdir(parents=True)
    (folder / "log" / DAY.isoformat() / "part.csv").write_text("\n".join([HEADER, *ROWS, ""]))
    parameters = Request.parameters(given, OF_USERS, DAY)
    made = {name: standard_artifacts.Examples() for name in ("catalogue", "users", "interactions")}
    for name, each in made.items():
        each.uri = f"{folder}/out/{name}"
    CatalogueExecutor().Do({}, {"examples": [made["catalogue"]]}, parameters)
    UserExecutor().Do({}, {"examples": [made["users"]]}, parameters)
    inputs = {name: [made[name]] for name in ("catalogue", "users")}
    InteractionExecutor().Do(inputs, {"examples": [made["interactions"]]}, parameters)
    rows = [json_of(made[name]) for name in ("users", "interactions")]
    return read(f"{made['interactions'].uri}/Split-train"), *rows


def json_of(examples: Any) -> Any:
    return json.loads(examples.get_string_custom_property("rows"))


def test_interactions_get_the_newest_tables_features_of_their_user(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    for day, table in (("2026-11-20", "id\nz\n"), ("2026-11-22", TABLE), ("2026-11-25", "id\nz\n")):
        (tmp_path / "users" / f"{day}.csv").write_text(table)
    examples, users, interactions = ingest(tmp_path)
    path = f"{tmp_path}/users/2026-11-22.csv"
    assert users["dropped"] == {
        "age: not a number": {"rows": 1, "first": [f"{path} line 5: 'old'"]},
        "id: an id that an earlier row has": {"rows": 1, "first": [f"{path} line 4"]},
    }
    mine = [example for example in examples if example["query_id"] == [b"u"]]
    assert len(mine) == 2
    for example in mine:
        assert (example["age"], example["likes"], example["likes_weights"]) == ([30.0], [b"x", b"y"], [1.0, 2.0])
        assert example["taste"] == [0.0, 1.0]
    (other,) = (example for example in examples if example["query_id"] == [b"v"])
    assert (other["age"], other["likes"], other["taste"]) == ([], [], [])
    assert (interactions["dropped"], interactions["splits"]) == ({}, {"eval": 1, "train": 3, USER_UNKNOWN: 1})


def test_a_table_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No users of 2026-11-24 or before at"):
        ingest(tmp_path)
    (tmp_path / "again").mkdir()
    with pytest.raises(UserError, match=r"data.users: expected the place of the users' table"):
        ingest(tmp_path / "again", users=None)


def test_invalid_features_of_the_users_table_are_rejected(tmp_path: Path) -> None:
    text = (Path(features.__file__).parents[1] / "movielens" / "features.yaml").read_text()
    old = "catalogue:\n"
    for wrong in ("history", "seed", "year", "nobody"):
        users = f"users: {{user: id, features: [age, {wrong}]}}\n"
        (tmp_path / "features.yaml").write_text(text.replace(old, users + old))
        with pytest.raises(UserError, match=rf"features.yaml:10: .*of the query of kind id, .* received '{wrong}'"):
            features.load(tmp_path)
