"""Turns a dataset's declared schema into an artifact of the run."""

import os

from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts
from tfx.utils import io_utils

SCHEMA_FILE = "schema.pbtxt"


@component
def DeclaredSchema(
    text: Parameter[str],
    schema: OutputArtifact[standard_artifacts.Schema],
) -> None:
    """Write a text proto of a TensorFlow Metadata schema.

    The parameter is the text itself, not its path as in TFX's ImportSchemaGen: so a changed schema is a changed input for TFX's
    cache, and a step in a container needs no file of the machine that compiled the pipeline.
    """
    io_utils.write_string_file(os.path.join(schema.uri, SCHEMA_FILE), text)
