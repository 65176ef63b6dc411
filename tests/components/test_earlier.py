"""Which of all runs' artifacts a day continues from: never one of its own day or later."""

import pytest
from tfx import types
from tfx.components.evaluator import constants
from tfx.types import standard_artifacts

from components import recorded
from components.artifacts import Counts
from components.resolver.earlier import (
    BASE_COUNTS_KEY,
    BLESSING_KEY,
    COUNTS_BEFORE_KEY,
    MODEL_KEY,
    STATISTICS_KEY,
    BlessedBefore,
    CountedBefore,
    TrainedBefore,
)

DAY = 20_000


def model(number: int, day: int, shape: str = "narrow") -> types.Artifact:
    made = standard_artifacts.Model()
    made.id = number
    made.set_int_custom_property(recorded.SPAN, day)
    made.set_string_custom_property(recorded.SHAPE, shape)
    return made


def verdict(number: int, of: int, blessed: bool = True) -> types.Artifact:
    """What the Evaluator says of the model `of`."""
    made = standard_artifacts.ModelBlessing()
    made.id = number
    made.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, of)
    made.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(blessed))
    return made


def statistics(number: int, day: int) -> types.Artifact:
    made = standard_artifacts.ExampleStatistics()
    made.id, made.span = number, day
    return made


def blessed_before(
    models: list[types.Artifact], verdicts: list[types.Artifact] | None = None, day: int = DAY, shape: str = ""
) -> tuple[list[int], list[int]]:
    """The numbers of the model and of its blessing; by default all models are blessed, each by the number 100 more."""
    if verdicts is None:
        verdicts = [verdict(100 + one.id, one.id) for one in models]
    found = BlessedBefore(day, shape).resolve_artifacts(None, {MODEL_KEY: models, BLESSING_KEY: verdicts})
    return [one.id for one in found[MODEL_KEY]], [one.id for one in found[BLESSING_KEY]]


def trained_before(made: list[types.Artifact], models: list[types.Artifact]) -> list[int]:
    """The numbers of the statistics."""
    found = TrainedBefore(DAY).resolve_artifacts(None, {STATISTICS_KEY: made, MODEL_KEY: models})
    assert found[MODEL_KEY] == []
    return [one.id for one in found[STATISTICS_KEY]]


def test_the_newest_day_before_is_gone_on_from_whatever_was_trained_last() -> None:
    # The day before yesterday was trained again after yesterday.
    assert blessed_before([model(1, DAY - 2), model(2, DAY - 1), model(3, DAY - 2)]) == ([2], [102])


def test_of_several_runs_of_a_day_the_last_is_gone_on_from() -> None:
    assert blessed_before([model(9, DAY - 1), model(10, DAY - 1), model(8, DAY - 1)]) == ([10], [110])


@pytest.mark.parametrize("day", [DAY, DAY + 1])
def test_a_backfilled_day_does_not_see_its_own_day_or_a_later_one(day: int) -> None:
    assert blessed_before([model(1, DAY - 30), model(2, day)]) == ([1], [101])
    assert blessed_before([model(2, day)]) == ([], [])


def test_a_model_that_was_not_blessed_is_passed_over() -> None:
    models = [model(1, DAY - 3), model(2, DAY - 2), model(3, DAY - 1)]
    # The second was refused, the third was never judged.
    assert blessed_before(models, [verdict(11, 1), verdict(12, 2, blessed=False)]) == ([1], [11])
    assert blessed_before(models, []) == ([], [])


def test_a_model_that_a_rollback_took_back_is_passed_over() -> None:
    models, verdicts = [model(1, DAY - 2), model(2, DAY - 1)], [verdict(11, 1), verdict(12, 2)]
    verdicts[1].set_int_custom_property(recorded.WITHDRAWN, 1)
    assert blessed_before(models, verdicts) == ([1], [11])
    verdicts[1].set_int_custom_property(recorded.WITHDRAWN, 0)  # it was brought back
    assert blessed_before(models, verdicts) == ([2], [12])


def test_a_blessing_of_another_model_says_nothing() -> None:
    assert blessed_before([model(1, DAY - 1)], [verdict(11, of=2)]) == ([], [])


def test_a_model_of_another_shape_is_passed_over_where_a_shape_is_asked_for() -> None:
    models = [model(1, DAY - 2, "narrow"), model(2, DAY - 1, "wide")]
    assert blessed_before(models, shape="narrow") == ([1], [101])
    assert blessed_before(models, shape="") == ([2], [102])
    assert blessed_before(models, shape="other") == ([], [])


def test_a_day_is_compared_with_the_newest_before_it() -> None:
    made = [statistics(1, DAY - 2), statistics(2, DAY - 1), statistics(3, DAY - 2)]
    assert trained_before(made, [model(7, DAY - 1), model(8, DAY - 2)]) == [2]


def test_of_several_runs_of_a_day_the_last_is_compared_with() -> None:
    made = [statistics(9, DAY - 1), statistics(10, DAY - 1), statistics(8, DAY - 1)]
    assert trained_before(made, [model(7, DAY - 1)]) == [10]


@pytest.mark.parametrize("day", [DAY, DAY + 1])
def test_a_day_is_not_compared_with_itself_or_a_later_one(day: int) -> None:
    models = [model(7, DAY - 30), model(8, day)]
    assert trained_before([statistics(1, DAY - 30), statistics(2, day)], models) == [1]
    assert trained_before([statistics(2, day)], models) == []


def test_a_day_without_a_trained_model_is_no_reference() -> None:
    # Validation stopped yesterday, before the Trainer. The model need not be blessed.
    made = [statistics(1, DAY - 2), statistics(2, DAY - 1)]
    assert trained_before(made, [model(7, DAY - 2)]) == [1]
    assert trained_before(made, []) == []
    assert trained_before([], [model(7, DAY - 2)]) == []


def test_a_first_runs_window_is_not_compared_with_a_days() -> None:
    """Regression: a day after a catch-up over months was stopped as a thousandth of it."""
    first, second = model(1, DAY - 2), model(2, DAY - 1)
    second.set_int_custom_property(recorded.CONTINUES, 1)
    older, newer = statistics(11, DAY - 2), statistics(12, DAY - 1)

    def compared(made: list[types.Artifact], models: list[types.Artifact]) -> list[types.Artifact]:
        found = TrainedBefore(DAY, after_first_run=True).resolve_artifacts(
            None, {STATISTICS_KEY: made, MODEL_KEY: models}
        )
        return list(found[STATISTICS_KEY])

    assert compared([older], [first]) == []
    assert compared([older, newer], [first, second]) == [newer]


def test_the_model_before_the_last_blessed_is_of_an_earlier_day() -> None:
    # Of two runs of yesterday neither is the model before; the last run of the day before that is.
    models = [model(1, DAY - 3), model(2, DAY - 2), model(3, DAY - 2), model(4, DAY - 1), model(5, DAY - 1)]
    blessings = [verdict(100 + one.id, one.id) for one in models]

    def found(skipped: int) -> list[int]:
        resolved = BlessedBefore(DAY, skipped=skipped).resolve_artifacts(
            None, {MODEL_KEY: models, BLESSING_KEY: blessings}
        )
        return [one.id for one in resolved[MODEL_KEY]]

    assert [found(skipped) for skipped in range(4)] == [[5], [3], [1], []]


def counted_before(made: list[tuple[int, int]], hours: int) -> tuple[list[int], list[int]]:
    """The numbers of the counts that are carried on, and of those of the evening before, of (number, day) each."""
    artifacts = []
    for number, day in made:
        counts = Counts()
        counts.id = number
        counts.set_int_custom_property(recorded.SPAN, day)
        artifacts.append(counts)
    keys = (BASE_COUNTS_KEY, COUNTS_BEFORE_KEY)
    found = CountedBefore(DAY, hours).resolve_artifacts(None, dict.fromkeys(keys, artifacts))
    carried, before = ([one.id for one in found[key]] for key in keys)
    return carried, before


def test_counts_are_carried_from_before_the_held_out_hours() -> None:
    made = [(1, DAY - 3), (2, DAY - 2), (3, DAY - 1), (4, DAY), (5, DAY + 1)]
    assert counted_before(made, hours=24) == ([3], [3])
    assert counted_before(made, hours=5) == ([3], [3])
    # Of the last 25 hours, yesterday's last is held out too: its counts know it, those of the day before it do not.
    assert counted_before(made, hours=25) == ([2], [3])
    assert counted_before(made, hours=240) == ([], [3])
    assert counted_before([*made, (6, DAY - 1)], hours=24) == ([6], [6])  # of a day that was delivered again, the last
    assert counted_before([(4, DAY)], hours=24) == ([], [])
