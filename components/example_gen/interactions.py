"""The interactions of a day's window as examples, each with its item's features and its user's history."""

import time
from dataclasses import replace
from datetime import date
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, component_spec, standard_artifacts

from components import utc
from components.artifacts import Artifacts
from components.example_gen import sources
from components.example_gen.accounting import Accounting
from components.example_gen.cleaning import Cleaning, before_rows
from components.example_gen.columns import interaction_columns
from components.example_gen.day_driver import DayDriver, Request
from components.example_gen.examples import check_files, conclude, generate, partitions
from components.example_gen.finish_interactions import FinishInteractions
from components.example_gen.held_out import HeldOut
from components.example_gen.settings import ExampleGenSettings, UserSplit
from components.example_gen.sources import Window
from components.example_gen.split_names import EVAL_SPLIT, TRAIN_SPLIT
from components.utc import microseconds
from schemas.errors import UserError
from schemas.features import (
    QUERY_ID,
    FeatureSpec,
)

SECONDS_A_DAY = 86_400.0


class InteractionSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of the InteractionExampleGen."""

    PARAMETERS = {
        name: component_spec.ExecutionParameter(type=str)
        for name in (Request.SETTINGS, Request.FEATURE_SPEC, Request.DAY)
    }
    INPUTS = {
        "catalogue": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "users": component_spec.ChannelParameter(type=standard_artifacts.Examples, optional=True),
        "base_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS = {"examples": component_spec.ChannelParameter(type=standard_artifacts.Examples)}


class InteractionDriver(DayDriver):
    """The driver of the InteractionExampleGen."""

    def files(self, request: Request, inputs: Artifacts) -> sources.Found:
        """Find the files of the window's days."""
        return sources.interaction_files(request.settings, _window(request, inputs))


class InteractionExecutor(base_beam_executor.BaseBeamExecutor):
    """Reads, cleans, joins and writes the interactions."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Override of TFX's method.

        Raises:
            UserError: a day is missing or empty, files cannot be read, or too many rows are faulty.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        request = Request(exec_properties)
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        window = _window(request, input_dict)
        selection = sources.interaction_files(request.settings, window)
        files = selection.files
        cleaning = Cleaning(
            request.settings.interactions,
            interaction_columns(request.spec),
            key=QUERY_ID,
            partitions=partitions(files),
            max_id_bytes=request.settings.max_id_bytes,
            time_range=(microseconds(window.history_start), window.end_microseconds),
            start=microseconds(window.start),
            keys=request.spec.interactions,
            keep_event=request.spec.has_events,
            closed=tuple(sorted(map(utc.span, window.closed))),
            latest=int((time.time() + SECONDS_A_DAY) * 1_000_000),
        )
        check_files(files, cleaning)
        catalogue = artifact_utils.get_single_instance(input_dict["catalogue"])
        (users,) = [artifact.uri for artifact in input_dict.get("users") or []] or [None]

        def ingest(held_out: HeldOut) -> Accounting:
            places_in = before_rows(files, request.settings.interactions)
            finish = FinishInteractions(
                held_out, request.spec, window, places_in, catalogue.uri, request.settings.repeated, users
            )
            with self._make_beam_pipeline() as pipeline:
                generate(pipeline, files, cleaning, finish, [TRAIN_SPLIT, EVAL_SPLIT], examples)
            return conclude(examples, "interactions", request.settings, selection)

        held_out = HeldOut(request.settings.split, utc.span(window.day), window.end_microseconds)
        accounting = ingest(held_out)
        if isinstance(held_out.split, UserSplit) and accounting.users and _has_empty_split(accounting):
            # A day with few users: the first of them is held out, or the newest interactions of a single user.
            for split in (TRAIN_SPLIT, EVAL_SPLIT):
                folder = artifact_utils.get_split_uri([examples], split)
                if fileio.exists(folder):
                    fileio.rmtree(folder)
            only = accounting.first_user if accounting.users > 1 else None
            accounting = ingest(replace(held_out, only=only, newest=only is None))
        if not accounting.rows_of_day:
            raise UserError(
                "\n".join(
                    [
                        f"{request.day} is empty: {accounting.rows} rows were read from {window.history_start} on, none of them "
                        f"of that day. Is its log written yet?",
                        *accounting.in_words(),
                    ]
                )
            )
        for split in (TRAIN_SPLIT, EVAL_SPLIT):
            if not accounting.splits.get(split):
                raise UserError(
                    f"The {split} split is empty: of {accounting.rows} interactions from {window.start} to {window.day}, "
                    f"data.split ({request.settings.split!r}) puts none there. Change the split or data.window_days."
                )
            if not accounting.rewarded.get(split):
                raise UserError(
                    f"The {split} split has no reward above 0 in {accounting.splits[split]} interactions: nothing could be "
                    f"{'learned from' if split == TRAIN_SPLIT else 'judged by'} it. Is "
                    f"{request.spec.interactions.reward_rule.column} the reward's column?"
                )


class InteractionExampleGen(base_beam_component.BaseBeamComponent):
    """Ingests the interactions of a day and of the days of the window before it.

    Args:
        settings: the place of the log, and its split.
        spec: its columns.
        day: the UTC day.
        catalogue: the examples of CatalogueExampleGen; an interaction with an item missing from it is dropped.
        base_model: the model that training continues from; if the channel is empty, the window is that of a first run.
        users: the examples of UserExampleGen, if the specification has a users' table; a user missing from it has none of its
            features, and is counted.

    Output `examples`, splits `train` and `eval`: an example for each interaction, with `candidate_id`, `query_id`, `timestamp`
    (int64, microseconds since 1970-01-01 UTC), `reward`, `event_kind` if there are kinds of event, and the raw
    features of both towers.
    """

    SPEC_CLASS = InteractionSpec
    DRIVER_CLASS = InteractionDriver
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(InteractionExecutor)

    def __init__(
        self,
        settings: ExampleGenSettings,
        spec: FeatureSpec,
        day: date,
        catalogue: types.BaseChannel,
        base_model: types.BaseChannel,
        users: types.BaseChannel | None = None,
    ) -> None:
        super().__init__(
            InteractionSpec(
                **Request.parameters(settings, spec, day),
                catalogue=catalogue,
                base_model=base_model,
                users=users,
                examples=types.Channel(type=standard_artifacts.Examples),
            )
        )


def _has_empty_split(accounting: Accounting) -> bool:
    return any(not accounting.rewarded.get(split) for split in (TRAIN_SPLIT, EVAL_SPLIT))


def _window(request: Request, inputs: Artifacts) -> Window:
    has_history = request.spec.history is not None
    return Window.of(request.settings, request.day, goes_on=bool(inputs.get("base_model")), has_history=has_history)
