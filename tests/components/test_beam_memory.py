"""What Beam answers from memory, against what it computes again."""

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.transforms import core

from components import beam_memory

FLAGS = ["--runner=DirectRunner", "--direct_num_workers=3"]


class Scale(beam.DoFn):
    def process(self, element: int, factor: int = 2) -> list[int]:
        return [factor * element]


def worked_out(flags: list[str], **overrides: object) -> PipelineOptions:
    options = PipelineOptions.__new__(PipelineOptions)
    beam_memory._parse(options, flags, **overrides)
    return options


def test_remembered_options_are_those_that_beam_parses() -> None:
    for _ in range(2):  # parsed, then remembered
        options = PipelineOptions(FLAGS, job_name="a")
        assert options.get_all_options() == worked_out(FLAGS, job_name="a").get_all_options()
        assert (options.view_as(StandardOptions).runner, options.view_as(DirectOptions).direct_num_workers) == (
            "DirectRunner",
            3,
        )


def test_an_option_that_is_changed_is_changed_for_one_pipeline() -> None:
    PipelineOptions(FLAGS).view_as(StandardOptions).runner = "Other"
    assert PipelineOptions(FLAGS).view_as(StandardOptions).runner == "DirectRunner"


def test_remembered_arguments_are_those_that_beam_finds() -> None:
    for _ in range(2):
        found = core.get_function_args_defaults(Scale().process)
        assert found == beam_memory._inspect(Scale().process) == (["element", "factor"], [2])
        found[0].clear()  # Beam changes what it is given
