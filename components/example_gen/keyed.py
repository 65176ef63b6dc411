"""The common part of steps that ingest a table with one row for each id: catalogue and users."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import apache_beam as beam
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor
from tfx.types import artifact_utils, component_spec, standard_artifacts

from components import recorded
from components.artifacts import Artifacts
from components.example_gen.accounting import Kind
from components.example_gen.cleaning import Cleaning
from components.example_gen.day_driver import DayDriver, Request
from components.example_gen.examples import check_files, conclude, generate
from components.example_gen.settings import ExampleGenSettings
from components.example_gen.sources import Found
from schemas.features import FeatureSpec

PARAMETERS = {
    name: component_spec.ExecutionParameter(type=str) for name in (Request.SETTINGS, Request.FEATURE_SPEC, Request.DAY)
}
OUTPUTS = {"examples": component_spec.ChannelParameter(type=standard_artifacts.Examples)}


@dataclass(frozen=True)
class Ingestion:
    """How a table becomes examples.

    Attributes:
        kind: the kind of the source, for the accounting.
        found: its files.
        cleaning: what to read of them, and what a row must meet.
        finish: turns rows into examples; see `components.example_gen.examples.generate`.
        splits: the splits to write.
        carried: reads an earlier day's output, as (partition, Arrow IPC of its rows); None without one.
        judged: the first held-out day, in days since 1970-01-01, if it sees other values.
    """

    kind: Kind
    found: Found
    cleaning: Cleaning
    finish: beam.DoFn
    splits: Sequence[str]
    carried: beam.PTransform | None = None
    judged: int | None = None


class Keyed(abc.ABC):
    """The common part of the driver and the executor of such a step."""

    @staticmethod
    @abc.abstractmethod
    def ingestion(request: Request, inputs: Artifacts) -> Ingestion:
        """Describe how the table becomes examples, given the step's input artifacts.

        Raises:
            UserError: it is missing.
        """


class KeyedDriver(Keyed, DayDriver):
    """The driver of such a step."""

    def files(self, request: Request, inputs: Artifacts) -> Found:
        """Find the table's files."""
        return self.ingestion(request, inputs).found


class KeyedExecutor(Keyed, base_beam_executor.BaseBeamExecutor):
    """Reads, cleans and writes such a table."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Override of TFX's method.

        Raises:
            UserError: the table is missing, cannot be read, or too many rows are faulty.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        request = Request(exec_properties)
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        table = self.ingestion(request, input_dict)
        check_files(table.found.files, table.cleaning)
        with self._make_beam_pipeline() as pipeline:
            generate(pipeline, table.found.files, table.cleaning, table.finish, table.splits, examples, table.carried)
        if table.judged is not None:
            examples.set_int_custom_property(recorded.JUDGED_DAY, table.judged)
        conclude(examples, table.kind, request.settings, table.found)


class KeyedSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of a step that reads daily tables."""

    PARAMETERS = PARAMETERS
    INPUTS = {"base_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True)}
    OUTPUTS = OUTPUTS


class KeyedExampleGen(base_beam_component.BaseBeamComponent):
    """Ingests a daily table; a subclass has the driver and the executor.

    Args:
        settings: the table's place.
        spec: its columns.
        day: the UTC day.
        base_model: the model that training continues from, if that decides how many days become examples.
    """

    SPEC_CLASS = KeyedSpec

    def __init__(
        self, settings: ExampleGenSettings, spec: FeatureSpec, day: date, base_model: types.BaseChannel | None = None
    ) -> None:
        examples = types.Channel(type=standard_artifacts.Examples)
        super().__init__(KeyedSpec(**Request.parameters(settings, spec, day), base_model=base_model, examples=examples))
