"""What an interaction weighs in training: of its reward's column and of its kind of event."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from pydantic import ValidationError

from components.evaluator.settings import EvaluatorSettings
from components.example_gen.accounting import Accounting
from components.example_gen.columns import interaction_columns
from schemas import contract
from tests.components.cleaned import DAY, clean, dropped, spec, texts, written

HEADER = "user,sku,at,seconds,length,revenue,kind,dev\n"


def log(folder: Path, rows: list[str], **interactions: Any) -> tuple[dict[str, float], Accounting]:
    """By user, the reward of each row of `seconds,length,revenue,kind`."""
    lines = [f"u{n},A,2026-11-24T05:00:00Z,{row},p" for n, row in enumerate(rows)]
    found = spec(interactions={"reward": None, **interactions})
    path = written(folder, HEADER + "\n".join(lines))
    table, accounting = clean(path, interaction_columns(found), DAY, keys=found.interactions)
    if not table.num_rows:
        return {}, accounting
    assert not {"_over", "_event"} & set(table.column_names)
    return dict(zip(texts(table, "query_id"), table.column("reward").to_pylist(), strict=True)), accounting


def test_seconds_watched_are_rewarded_by_the_length(tmp_path: Path) -> None:
    rows = ["30,120,0,v", "120,120,0,v", "130,120,0,v", "5,0,0,v", "5,,0,v", "-1,120,0,v"]
    reward, accounting = log(tmp_path, rows, reward={"column": "seconds", "over": "length"})
    assert reward == {"u0": 0.25, "u1": 1.0}  # 30 / 120, 120 / 120
    # 130 of 120 and -1 are outside; a length of 0 gives no reward.
    assert dropped(accounting) == {"seconds: outside [0, 1]": 2, "length: not above 0": 1, "length: missing": 1}
    reward, accounting = log(tmp_path, rows, reward={"column": "seconds", "over": "length", "clip": True})
    assert reward == {"u0": 0.25, "u1": 1.0, "u2": 1.0}
    assert dropped(accounting)["seconds: outside [0, 1]"] == 1


def test_revenue_is_rewarded_by_its_logarithm(tmp_path: Path) -> None:
    rule = {"column": "revenue", "scale": "log", "over": 99, "clip": True}
    reward, accounting = log(tmp_path, ["0,0,9,v", "0,0,99,v", "0,0,5000,v", "0,0,0,v", "0,0,-5,v"], reward=rule)
    # log(1 + 9) / log(1 + 99) is a half; refunds have no logarithm.
    assert reward == pytest.approx({"u0": 0.5, "u1": 1.0, "u2": 1.0, "u3": 0.0})
    assert dropped(accounting) == {"revenue: outside [0, 1]": 1}


def test_events_have_their_declared_weights_and_those_of_weight_zero_are_filtered(tmp_path: Path) -> None:
    rows = ["1,1,0,view", "1,1,0,purchase", "1,1,0,impression", "1,1,0,refund", "1,1,0,"]
    event = {"column": "kind", "weights": {"view": 0.25, "purchase": 1, "impression": 0}}
    reward, accounting = log(tmp_path, rows, event=event)
    assert reward == {"u0": 0.25, "u1": 1.0}
    assert accounting.filtered == {"kind: weighs nothing": 1}
    assert dropped(accounting) == {"kind: an event that has no weight": 1, "kind: missing": 1}
    reward, accounting = log(tmp_path, rows, event={**event, "zero_in_history": True})
    assert reward == {"u0": 0.25, "u1": 1.0, "u2": 0.0} and not accounting.filtered


def test_examples_have_their_kind_of_event_and_an_older_schema_is_completed(tmp_path: Path) -> None:
    found = spec(interactions={"reward": None, "event": {"column": "kind", "weights": {"view": 0.25, "purchase": 1}}})
    (kind,) = (each for each in contract.draft(found).interactions.feature if each.name == "event_kind")
    assert kind.presence.min_fraction == 1.0
    older = contract.draft(spec(interactions={"reward": None})).interactions
    (tmp_path / contract.INTERACTIONS_FILE).write_text(text_format.MessageToString(older))
    loaded = contract.load(tmp_path, found).interactions
    assert {each.name for each in loaded.feature} - {each.name for each in older.feature} == {"event_kind"}


def test_metrics_are_sliced_by_kinds_of_events() -> None:
    event = {"column": "kind", "weights": {"view": 0.25, "purchase": 1, "impression": 0}}
    found = spec(interactions={"reward": None, "event": event})
    settings = EvaluatorSettings.model_validate(
        {
            "limits": [
                {"metric": "mrr", "slice": {"event_kind": kind}, "at_least": 0.1} for kind in ("purchase", "impression")
            ]
        }
    )
    assert settings.of(found).slices["event_kind"].most == 3
    assert settings.of(spec()).slices == {}
    expected = "expected a kind of event with a weight above 0 (view, purchase), received 'impression'"
    assert settings.faults(found) == [(("limits", 1, "slice", "event_kind"), expected)]
    assert [path for path, _ in settings.faults(spec())] == [("limits", n, "slice", "event_kind") for n in (0, 1)]
    every = EvaluatorSettings.model_validate({"slices": {"event_kind": {"most": 1}}})
    assert (every.faults(found), every.of(found).slices["event_kind"].most) == ([], 1)
    assert [path for path, _ in every.faults(spec())] == [("slices", "event_kind")]


def test_reward_and_event_multiply(tmp_path: Path) -> None:
    event = {"column": "kind", "weights": {"view": 0.5, "purchase": 1}}
    reward, _ = log(
        tmp_path, ["50,0,0,view", "50,0,0,purchase"], reward={"column": "seconds", "over": 100}, event=event
    )
    assert reward == {"u0": 0.25, "u1": 0.5}


@pytest.mark.parametrize(
    "interactions",
    [
        {"reward": {"column": "seconds", "over": 0}},
        {"event": {"column": "kind", "weights": {}}},
        {"event": {"column": "kind", "weights": {"view": 2}}},
    ],
)
def test_invalid_rewards_are_rejected(interactions: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(interactions=interactions)
