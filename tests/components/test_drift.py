"""A span's interactions against the previous span's, by TFX's own component on statistics of examples made here."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from google.protobuf import json_format
from ml_metadata.metadata_store import metadata_store
from pydantic import ValidationError
from tensorflow_data_validation.statistics import stats_impl
from tfx import types
from tfx import v1 as tfx
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.types import standard_artifacts, standard_component_specs
from tfx.utils import json_utils
from tfx_bsl.coders import example_coder

from components import utc
from components.example_validator.drift import (
    HISTORY_KEY,
    SPLITS,
    StoppingDistributionExecutor,
    StoppingDistributionValidator,
    distribution_config,
    drift_faults,
)
from components.example_validator.settings import ValidationSettings
from schemas.errors import UserError
from schemas.features import FeatureSpec

SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "sku", "time": "at"},
        "catalogue": {"item": "sku"},
        "tables": {"any": {"width": 2, "hash_buckets": 4}},
        "query": {"device": {"kind": "id", "table": "any"}, "past": {"kind": "history", "table": "any", "last": 3}},
        "item": {"tags": {"kind": "ids", "table": "any", "max_values": 3}, "price": {"kind": "number"}},
    }
)
YESTERDAY, TODAY = date(2026, 11, 23), date(2026, 11, 24)
Row = dict[str, list[Any] | None]
Rows = list[Row]
HALVES: Rows = [{"device": [half]} for half in [b"a"] * 5 + [b"b"] * 5]


def statistics(folder: Path, day: date, rows: Rows, held_out: Rows | None = None) -> types.Artifact:
    """What StatisticsGen leaves, with `held_out` (by default `rows`) as the eval split."""
    artifact = standard_artifacts.ExampleStatistics()
    artifact.uri, artifact.span = f"{folder}/{day}", utc.span(day)
    artifact.split_names = '["train", "eval"]'
    for split, chosen in (("train", rows), ("eval", rows if held_out is None else held_out)):
        batch = example_coder.ExamplesToRecordBatchDecoder().DecodeBatch([example(row) for row in chosen])
        made = stats_impl.generate_statistics_in_memory(batch)
        path = Path(artifact.uri) / f"Split-{split}" / stats_artifact_utils.BINARY_PB_BASENAME
        path.parent.mkdir(parents=True)
        path.write_bytes(made.SerializeToString())
    return artifact


def example(row: Row) -> bytes:
    """None is a feature that is written without a list, [] one with a list of nothing."""
    made = tf.train.Example()
    for name, values in row.items():
        feature = made.features.feature[name]
        if values is not None:
            target = feature.float_list if name == "price" else feature.bytes_list
            target.SetInParent()
            target.value.extend(values)
    return made.SerializeToString()


def validate(folder: Path, current: types.Artifact, previous: types.Artifact | None, **settings: Any) -> types.Artifact:
    """Runs the step's executor; raises what it raises."""
    anomalies = standard_artifacts.ExampleAnomalies()
    anomalies.uri = str(folder / "anomalies")
    StoppingDistributionExecutor().Do(
        {
            standard_component_specs.STATISTICS_KEY: [current],
            standard_component_specs.BASELINE_STATISTICS_KEY: [previous] if previous else [],
        },
        {standard_component_specs.ANOMALIES_KEY: [anomalies]},
        {
            standard_component_specs.DISTRIBUTION_VALIDATOR_CONFIG_KEY: distribution_config(
                ValidationSettings.model_validate(settings), SPEC
            ),
            standard_component_specs.INCLUDE_SPLIT_PAIRS_KEY: json_utils.dumps([(s, s) for s in SPLITS]),
            HISTORY_KEY: json.dumps(["past", 3, ValidationSettings.model_validate(settings).least_history]),
        },
    )
    return anomalies


def compare(folder: Path, previous: Rows, current: Rows, **settings: Any) -> None:
    validate(folder, statistics(folder, TODAY, current), statistics(folder, YESTERDAY, previous), **settings)


def share(of: bytes, tenths: int, feature: str = "device") -> Rows:
    """Ten examples: a number of them with one value, the others with another."""
    return [{feature: [value]} for value in [of] * tenths + [b"other"] * (10 - tenths)]


def test_the_largest_change_of_a_share_is_the_distance(tmp_path: Path) -> None:
    # a has .5 yesterday and .8 today: .3 more; other has .3 less.
    with pytest.raises(UserError) as stopped:
        compare(tmp_path / "stops", share(b"a", 5), share(b"a", 8), drift={"device": 0.29})
    said = str(stopped.value)
    assert said.startswith("The interactions of 2026-11-24 (current) are further from those of 2026-11-23 (previous)")
    assert "\n  train split: device: The Linfty distance between current and previous is 0.3 " in said
    assert "\n  eval split: device: " in said
    assert "above the threshold 0.29" in said
    assert "widen the limit" in said
    compare(tmp_path / "passes", share(b"a", 5), share(b"a", 8), drift={"device": 0.31})


def test_shares_are_of_all_values_not_of_examples(tmp_path: Path) -> None:
    # Yesterday x and y in every example: .5 each. Today 5 with x alone and 5 with both: x has 10 of 15 values, y 5: 1/6 less.
    previous: Rows = [{"tags": [b"x", b"y"]}] * 10
    current: Rows = [{"tags": tags} for tags in [[b"x"]] * 5 + [[b"x", b"y"]] * 5]
    with pytest.raises(UserError, match=r"tags: The Linfty distance between current and previous is 0\.166667"):
        compare(tmp_path / "stops", previous, current, drift={"tags": 0.16})
    compare(tmp_path / "passes", previous, current, drift={"tags": 0.17})


def test_a_history_is_compared_by_its_values(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"past: The Linfty distance between current and previous is 0\.4 "):
        compare(tmp_path, share(b"A", 5, "past"), share(b"A", 9, "past"), drift={"past": 0.39})


def test_numbers_are_compared_by_the_jensen_shannon_divergence(tmp_path: Path) -> None:
    # Evenly over [0, 1000) yesterday, over [0, 500) today: the halves hold (1/2, 1/2) and (1, 0), their mean is (3/4, 1/4), and
    # H(3/4, 1/4) - (H(1/2, 1/2) + H(1, 0)) / 2 = 0.8113 - (1 + 0) / 2 = 0.3113 bits.
    previous: Rows = [{"price": [float(n)]} for n in range(1000)]
    with pytest.raises(UserError, match=r"price: The approximate Jensen-Shannon divergence .* is 0\.311279 "):
        compare(tmp_path / "stops", previous, previous[:500], drift={"price": 0.31})
    compare(tmp_path / "passes", previous, previous[:500], drift={"price": 0.32})


@pytest.mark.parametrize(
    ("examples", "limits", "reason"),
    [
        (4, {"least_volume": 0.5}, "is 0.4 .*below the threshold 0.5. There are 4 examples in the current span, 10 in"),
        (5, {"least_volume": 0.5}, None),
        (20, {"most_volume": 2}, None),
        (21, {"most_volume": 2}, "is 2.1 .*above the threshold 2. There are 21 examples in the current span, 10 in"),
        (21, {"least_volume": 0.5, "most_volume": 2}, "is 2.1 .*above the threshold 2"),
        (1, {"most_volume": 2}, None),
        (10, {"least_volume": 1, "most_volume": 1}, None),
        (0, {"least_volume": 0.5}, "There are 0 examples in the current span, 10 in the previous"),
    ],
)
def test_the_volume_is_a_share_of_the_previous_spans(
    tmp_path: Path, examples: int, limits: dict[str, float], reason: str | None
) -> None:
    previous, current = HALVES, (HALVES * 3)[:examples]
    if reason is None:
        compare(tmp_path, previous, current, **limits)
    else:
        with pytest.raises(UserError, match=f"train split: the whole split: .*{reason}"):
            compare(tmp_path, previous, current, **limits)


def test_each_split_is_compared_with_its_own(tmp_path: Path) -> None:
    previous = statistics(tmp_path, YESTERDAY, share(b"a", 5), share(b"a", 1))
    current = statistics(tmp_path, TODAY, share(b"a", 5), share(b"a", 9))
    with pytest.raises(UserError, match=r"\n  eval split: device: .* is 0\.8 ") as stopped:
        validate(tmp_path, current, previous, drift={"device": 0.5})
    assert "train split" not in str(stopped.value)


@pytest.mark.parametrize("feature", ["device", "price"])
@pytest.mark.parametrize("left", ["empty", "null", "absent"])
def test_a_feature_without_values_is_named_not_passed(tmp_path: Path, feature: str, left: str) -> None:
    halves = [1.0, 2.0] if feature == "price" else [b"a", b"b"]
    there: Rows = [{feature: [value], "tags": [b"x"]} for value in halves * 5]
    written: dict[str, Row] = {"empty": {feature: []}, "null": {feature: None}, "absent": {}}
    lacking: Row = {"tags": [b"x"], **written[left]}
    missing = [lacking] * 10
    limits = {feature: 0.99}  # TFDV takes shares of nothing as 0: two equal halves would then be .5 away
    for name, previous, current, counts in (
        ("today", there, missing, "0 values in the current span, 10 in the previous"),
        ("yesterday", missing, there, "10 values in the current span, 0 in the previous"),
        ("both", missing, missing, "0 values in the current span, 0 in the previous"),
    ):
        with pytest.raises(UserError) as stopped:
            compare(tmp_path / name, previous, current, drift=limits)
        said = str(stopped.value)
        assert f"train split: {feature}: There is nothing to compare: {counts}" in said
        assert said.count(f"{feature}: ") == len(SPLITS)  # once a split, whatever TFX says of it


def test_examples_without_a_value_do_not_count(tmp_path: Path) -> None:
    # 5 a and 5 b yesterday; the same today, among 90 examples without any.
    compare(tmp_path, HALVES, HALVES + [{"device": []}] * 90, drift={"device": 0.01})


def test_without_limits_nothing_is_compared(tmp_path: Path) -> None:
    compare(tmp_path, [{"device": [b"a"]}], [{"price": [3.0]}] * 10)


def test_the_first_day_passes(tmp_path: Path) -> None:
    validate(tmp_path, statistics(tmp_path, TODAY, HALVES), None, drift={"device": 0.01}, least_volume=0.99)


def test_limits_are_for_features_that_there_are() -> None:
    settings = ValidationSettings(drift={"device": 0.1, "colour": 0.1})
    assert [path for path, _ in drift_faults(settings, SPEC)] == [("drift", "colour")]
    with pytest.raises(
        UserError, match=r"drift.colour: expected a feature .*\(device, past, price, tags\), received 'colour'"
    ):
        distribution_config(settings, SPEC)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"least_volume": 2, "most_volume": 1.5}, r"most_volume: expected at least least_volume \(2\), received 1.5"),
        ({"drift": {"device": 0}}, "greater than 0"),
        ({"least_volume": -0.1}, "greater than or equal to 0"),
        ({"most_volume": 0}, "greater than 0"),
        ({"most": 1}, "Extra inputs"),
    ],
)
def test_invalid_limits_are_rejected(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ValidationSettings.model_validate(settings)


class Spans:
    """A pipeline of the step alone, which TFX itself runs, over statistics that are there."""

    def __init__(self, folder: Path, settings: ValidationSettings) -> None:
        self._folder = folder
        self._settings = settings

    def run(self, previous: Rows | None, current: Rows) -> dict[str, int]:
        """What TFX recorded for each split: 1 passed, 2 had nothing to be compared with."""
        nodes = [self._import("Current", TODAY, current)]
        if previous is not None:
            nodes.append(self._import("Previous", YESTERDAY, previous))
        baseline = tfx.dsl.Channel(
            type=standard_artifacts.ExampleStatistics, producer_component_id="Previous", output_key="result"
        )
        validator = StoppingDistributionValidator(nodes[0].outputs["result"], baseline, self._settings, SPEC)
        validator.add_upstream_nodes(nodes)
        connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(f"{self._folder}/metadata.sqlite")
        tfx.orchestration.LocalDagRunner().run(
            tfx.dsl.Pipeline(
                pipeline_name="spans",
                pipeline_root=str(self._folder / "root"),
                components=[*nodes, validator],
                metadata_connection_config=connection,
            )
        )
        (anomalies,) = metadata_store.MetadataStore(connection).get_artifacts_by_type("ExampleAnomalies")
        assert json.loads(anomalies.custom_properties["histories"].string_value)["last"] == 3
        return json_format.MessageToDict(anomalies.custom_properties["blessed"].struct_value)

    def _import(self, node: str, day: date, rows: Rows) -> Any:
        made = statistics(self._folder, day, rows)
        return tfx.dsl.Importer(
            source_uri=made.uri,
            artifact_type=standard_artifacts.ExampleStatistics,
            properties={"span": made.span, "split_names": made.split_names},
        ).with_id(node)


def histories(*lengths: int) -> Rows:
    """Examples with a number of items in each history."""
    return [{"device": [b"a"], **({"past": [b"x"] * length} if length else {})} for length in lengths]


def test_the_lengths_of_histories_are_compared(tmp_path: Path) -> None:
    # Training: (0 + 1 + 1 + 0) / 4 = .5 items, an example without a history counted as one of none. Held out: (3 + 1) / 2 = 2.
    # The span before: (2 + 2) / 2 = 2. A half of either would be 1.
    current = statistics(tmp_path, TODAY, histories(0, 1, 1, 0), held_out=histories(3, 1))
    previous = statistics(tmp_path, YESTERDAY, histories(2, 2))
    found = json.loads(validate(tmp_path, current, previous).get_string_custom_property("histories"))
    assert {**found, "cautions": len(found["cautions"])} == {
        "feature": "past", "last": 3, "train": 0.5, "eval": 2.0, "previous": 2.0, "cautions": 2,
    }  # fmt: skip
    of_held_out, of_previous = found["cautions"]
    assert (
        "in training histories have 0.5 items on average, held out 2.0" in of_held_out and "history_days" in of_held_out
    )
    assert "on the span before 2.0" in of_previous
    # A quarter is allowed: nothing is said. Nor of a first day that has none before it.
    found = validate(tmp_path, current, previous, least_history=0.25).get_string_custom_property("histories")
    assert json.loads(found)["cautions"] == []
    alike = statistics(tmp_path / "alike", TODAY, histories(1, 1))
    found = json.loads(validate(tmp_path, alike, None).get_string_custom_property("histories"))
    assert (found["train"], found["previous"], found["cautions"]) == (1.0, None, [])


def test_tfx_runs_the_step(tmp_path: Path) -> None:
    settings = ValidationSettings(drift={"device": 0.29}, least_volume=0.5)
    with pytest.raises(UserError, match=r"train split: device: The Linfty distance .* is 0\.3 "):
        Spans(tmp_path, settings).run(share(b"a", 5), share(b"a", 8))


def test_tfx_runs_the_step_on_a_first_day(tmp_path: Path) -> None:
    settings = ValidationSettings(drift={"device": 0.29}, least_volume=0.5)
    assert Spans(tmp_path, settings).run(None, HALVES) == {"train": 2, "eval": 2}


def test_tfx_runs_the_step_without_limits(tmp_path: Path) -> None:
    passed = Spans(tmp_path, ValidationSettings()).run(share(b"a", 5), share(b"a", 8))
    assert passed == {"train_train": 1, "eval_eval": 1}


def test_a_delivery_that_broke_off_stops_the_run_by_default(tmp_path: Path) -> None:
    few, many = HALVES[:4], HALVES * 10  # 4 of 100 are less than a twentieth, 5 are not
    with pytest.raises(UserError, match="There are 4 examples in the current span, 100 in the previous"):
        validate(tmp_path, statistics(tmp_path, TODAY, few), statistics(tmp_path, YESTERDAY, many))
    (tmp_path / "enough").mkdir()
    enough = statistics(tmp_path / "enough", TODAY, HALVES[:5]), statistics(tmp_path / "enough", YESTERDAY, many)
    validate(tmp_path / "enough", *enough)
