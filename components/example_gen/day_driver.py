"""TFX drivers that find a day's data before a step runs, so that TFX's cache and ML Metadata know it."""

import abc
import copy
import json
from collections.abc import Mapping
from datetime import date
from typing import Any

from tfx.components.example_gen import driver, utils
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import standard_component_specs

from components import recorded, utc
from components.artifacts import Artifacts
from components.example_gen import sources
from components.example_gen.settings import ExampleGenSettings
from schemas.features import FeatureSpec


class Request:
    """A step's parameters: the settings, the feature specification and the day."""

    SETTINGS = "settings"
    FEATURE_SPEC = "feature_spec"
    DAY = "day"

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.settings = ExampleGenSettings.model_validate_json(parameters[self.SETTINGS])
        self.spec = FeatureSpec.model_validate_json(parameters[self.FEATURE_SPEC])
        self.day = date.fromisoformat(parameters[self.DAY])

    @classmethod
    def parameters(cls, settings: ExampleGenSettings, spec: FeatureSpec, day: date) -> dict[str, str]:
        """Serialise a request as the step's parameters."""
        return {
            cls.SETTINGS: settings.model_dump_json(),
            cls.FEATURE_SPEC: spec.model_dump_json(),
            cls.DAY: day.isoformat(),
        }


class DayDriver(driver.Driver):
    """Sets on the examples the day as their span, and the fingerprint of all their source files."""

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Override of TFX's method. Missing data is left for the executor to report, because only that fails the step."""
        request = Request(execution_info.exec_properties)
        files: list[sources.SourceFile] = []

        def find() -> sources.Found:
            of_day = self.files(request, execution_info.input_dict)
            files.extend(of_day.files)
            return of_day

        fingerprint = sources.fingerprint_of(find)
        output = driver_output_pb2.DriverOutput()
        span = utc.span(request.day)
        output.exec_properties[utils.SPAN_PROPERTY_NAME].int_value = span
        output.exec_properties[utils.FINGERPRINT_PROPERTY_NAME].string_value = fingerprint
        key = standard_component_specs.EXAMPLES_KEY
        examples = copy.deepcopy(execution_info.output_dict[key][0].mlmd_artifact)
        examples.properties[utils.SPAN_PROPERTY_NAME].int_value = span
        examples.custom_properties[utils.FINGERPRINT_PROPERTY_NAME].string_value = fingerprint
        # For people; the cache uses the fingerprint.
        examples.custom_properties[recorded.FILES].string_value = json.dumps(sources.summary(files))
        output.output_artifacts[key].artifacts.append(examples)
        return output

    @abc.abstractmethod
    def files(self, request: Request, inputs: Artifacts) -> sources.Found:
        """Find the files of the day, given the step's input artifacts."""
