"""The schema that a dataset declares, as an artifact of the run."""

import os

from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts
from tfx.utils import io_utils

SCHEMA_FILE = "schema.pbtxt"


@component
def DeclaredSchema(  # noqa: N802
    text: Parameter[str],
    schema: OutputArtifact[standard_artifacts.Schema],
) -> None:
    """Writes a text proto of a TensorFlow Metadata schema.

    The text itself is the parameter, not its path, as for TFX's ImportSchemaGen: so a changed schema is a changed
    input, which TFX's cache sees, and a step in a container needs no file of the machine that compiled the pipeline.
    """
    io_utils.write_string_file(os.path.join(schema.uri, SCHEMA_FILE), text)
