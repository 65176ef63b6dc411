"""Settings of the pipeline's metrics."""

import re

from pydantic import field_validator

from schemas.declaration import Declaration


class MonitoringSettings(Declaration):
    """Where metrics are written after every run, successful or not; see docs/monitoring.md.

    Attributes:
        textfile: a file in the folder that the node exporter reads (`--collector.textfile.directory`), ending in .prom; relative
            to the root. None to write no file.
        pushgateway: the address of a Pushgateway, http:// or https://. None to push nothing.
    """

    textfile: str | None = None
    pushgateway: str | None = None

    @field_validator("textfile")
    @classmethod
    def _is_read_by_the_node_exporter(cls, textfile: str | None) -> str | None:
        if textfile is not None and not textfile.endswith(".prom"):
            raise ValueError(
                f"expected a file name ending in .prom, as the node exporter reads no other, received {textfile!r}"
            )
        return textfile

    @field_validator("pushgateway")
    @classmethod
    def _is_an_address(cls, pushgateway: str | None) -> str | None:
        if pushgateway is not None and not re.fullmatch(r"https?://[^/\s@]+(/\S*)?", pushgateway):
            raise ValueError(f"expected an address such as http://pushgateway:9091, received {pushgateway!r}")
        return pushgateway
