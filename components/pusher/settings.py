"""Settings of the push folder."""

import re

from pydantic import Field, field_validator

from schemas.declaration import Declaration

ADDRESS = re.compile(r"[a-z0-9]+://[^/]+.*")


class PusherSettings(Declaration):
    """The push folder.

    Attributes:
        destination: a path below the root, or the address of a folder in an object store, such as s3://bucket/serving or
            gs://bucket/serving. Credentials come from the environment (docs/buckets.md).
        label: the label for every pushed version, such as `canary`, until `ndr promote` gives it `stable`; None for no label.
    """

    destination: str = Field(default="serving", pattern=r"^[^\x00]+$")
    label: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,62}$")

    @field_validator("destination")
    @classmethod
    def _is_a_path_or_an_address(cls, destination: str) -> str:
        if "://" in destination and "@" in destination.partition("://")[2].partition("/")[0]:
            raise ValueError("expected an address without credentials, which are the environment's matter")
        if "://" in destination and not ADDRESS.fullmatch(destination):
            raise ValueError(f"expected a path or an address such as gs://bucket/serving, received {destination!r}")
        return destination.rstrip("/") or "/"
