"""TFX's handle on ML Metadata, over our connection to the store."""

from tfx.orchestration import metadata

from pipeline.records.store import connect


class PatientMetadata(metadata.Metadata):
    """TFX's handle that waits for a restarting server, raises readable errors, and accepts any text in any store."""

    def __enter__(self) -> "PatientMetadata":
        self._store = connect(self._connection_config)
        self._users += 1
        return self
