"""Evaluates models by the next day: ranks a day's interactions with models trained before it."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray
from tfx.utils import io_utils, path_utils

from components.evaluator.catalogue import Places
from components.evaluator.cells import add_up
from components.evaluator.interactions import ReadByGroup, Window
from components.evaluator.names import BASELINE, CANDIDATE
from components.evaluator.preparing import MakePipeline, Task, prepare
from components.evaluator.scoring import ScoreGroup
from components.evaluator.settings import EvaluatorSettings
from components.evaluator.sums import Sums, report
from components.utc import MICROSECONDS_A_DAY
from components.whole_files import write_whole
from schemas.features import FeatureSpec

OfGroup: TypeAlias = "tuple[int, int, int, dict[str, dict[str, NDArray[np.float64]]]]"
"""A group of users, its ranked interactions, those with items that are gone, and sums by slice and scorer."""


@dataclass(frozen=True)
class NextDay:
    """A day's evaluation of models trained before it.

    Attributes:
        metrics: as `components.evaluator.evaluation.read_metrics` returns them; `candidate` is the evaluated model, `baseline` the
            one blessed before it. Without retrieval and version skew. Empty if nothing was ranked.
        interactions: the day's, with a reward above 0.
        ranked: the number ranked: those of the drawn users, with items of the catalogue.
        not_in_catalogue: the number of those users' interactions with items that the catalogue lacks.
    """

    metrics: Mapping[str, Any]
    interactions: int
    ranked: int
    not_in_catalogue: int


def judge_next_day(
    interactions: Sequence[str],
    catalogue: Sequence[str],
    model: str,
    earlier_model: str | None,
    counts: Sequence[str],
    settings: EvaluatorSettings,
    spec: FeatureSpec,
    span: int,
    make_pipeline: MakePipeline,
    working: str,
) -> NextDay:
    """Rank a day's interactions, both training and held out, with models that have seen none of them.

    If the day has more than `settings.next_day_interactions`, whole users are drawn by a digest. The same arguments give identical
    figures, whatever the runner.

    Args:
        interactions: patterns of gzipped TFRecords of the day's tf.Examples, of all splits; rows of earlier days are ignored.
        catalogue: the same for the day's catalogue, one for each item.
        model: the uri of the evaluated model, whose vocabularies tell which items and users it knew.
        earlier_model: that of the model blessed before it, to see whether newer is better; None without one.
        counts: the folders of `components.counts.files` as of the evening before; may be empty.
        settings: the evaluator's settings.
        spec: the dataset's features.
        span: the day, in days since 1970-01-01.
        make_pipeline: makes a Beam pipeline; several are run, one after the other.
        working: a temporary folder; the caller removes it.

    Raises:
        UserError: a tower cannot be loaded, or counts are incomplete.
    """
    models = {CANDIDATE: model} | ({BASELINE: earlier_model} if earlier_model else {})
    task = Task(
        interactions=interactions,
        catalogue=catalogue,
        models={name: path_utils.serving_model_path(uri) for name, uri in models.items()},
        counts=counts,
        has_rows=model,
        settings=settings,
        spec=spec,
        window=Window(span, start=span * MICROSECONDS_A_DAY),
        most=settings.next_day_interactions,
    )
    places, facts, window = prepare(task, make_pipeline, working)
    path = os.path.join(working, "next_day.json")
    with make_pipeline() as pipeline:
        _ = (
            pipeline
            | "Day" >> ReadByGroup(interactions, window)
            | "Rank" >> beam.ParDo(AddUpGroup(places, settings, spec, span))
            | "Together" >> beam.combiners.ToList()
            | "Write" >> beam.Map(_write, settings, path)
        )
    content = json.loads(io_utils.read_string_file(path))
    return NextDay(interactions=facts.interactions, **content)


class AddUpGroup(beam.DoFn):
    """Adds up (group of users, lists of serialised interactions)."""

    def __init__(self, places: Places, settings: EvaluatorSettings, spec: FeatureSpec, span: int) -> None:
        self._settings = settings
        self._score = ScoreGroup(places, settings, spec, span)

    def process(self, element: tuple[int, Iterable[list[bytes]]]) -> Iterator[OfGroup]:
        """Override of Beam's method."""
        number, several = element
        group = self._score(number, [example for examples in several for example in examples])
        count = group.rows.num_rows
        sums = {}
        if count:
            sums = add_up(self._settings.statistics, group.scored, group.sets, group.slices).by_slice()
        yield number, count, group.not_in_catalogue, sums


def _write(groups: Sequence[OfGroup], settings: EvaluatorSettings, path: str) -> None:
    by_slice: dict[str, Sums] = {}
    for number, _, _, of_slices in sorted(groups, key=lambda group: group[0]):
        for name, of_scorers in of_slices.items():
            sums = by_slice.setdefault(name, Sums())
            for scorer, values in of_scorers.items():
                sums.add(scorer, number, values)
    content = {
        "metrics": report(settings.statistics, by_slice, settings.beat),
        "ranked": sum(count for _, count, _, _ in groups),
        "not_in_catalogue": sum(gone for _, _, gone, _ in groups),
    }
    write_whole(path, json.dumps(content).encode())
