"""The stores there are, by name."""

from contextlib import AbstractContextManager
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.export.store import Store


class Name(StrEnum):
    """The name of a store on the command line, and its key below `export` in the configuration."""

    PARQUET = "parquet"
    POSTGRESQL = "postgresql"


def opened(config: "Config", name: Name, writes: bool) -> AbstractContextManager["Store"]:
    """Open a store.

    Args:
        config: the pipeline's configuration.
        name: which.
        writes: whether to write to it, as the only process that does.

    Raises:
        UserError: it is not configured, or refuses.
        PassingError: it cannot be reached, or another export writes to it.
    """
    if name is Name.PARQUET:
        from pipeline.export import parquet

        return parquet.opened(config, writes)
    from pipeline.export import postgresql

    return postgresql.opened(config, writes)
