"""The base of all that a user declares in YAML: frozen, without unknown keys, with local paths."""

import re
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator

from schemas import located_yaml

OBJECT_STORE = re.compile(r"(s3|gs)://([^/@?#*\[\]{}\s]+)(/.*)?", re.DOTALL)
"""The address of a place in an object store: scheme, bucket, and key."""

Fault = tuple[located_yaml.KeyPath, str]


def address_fault(value: object) -> str | None:
    """Say what is wrong with an address given instead of a local path. It is not shown, because it may contain credentials."""
    scheme, sign, _ = str(value).partition("://")
    if sign and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return f"expected a path of this machine, received an address, {scheme}://...; mount it and name its folder"
    return None


class Declaration(BaseModel):
    """A frozen model that rejects unknown keys: a misspelt key is a fault, never a default. Paths are local."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _names_no_address(cls, content: Any) -> Any:
        """Reject an address: as a `Path`, s3://bucket/x would be a folder named `s3:`."""
        faults: list[Fault] = [
            ((name,), reason)
            for name, field in cls.model_fields.items()
            if isinstance(content, dict) and Path in (field.annotation, *get_args(field.annotation))
            if (reason := address_fault(content.get(name)))
        ]
        if faults:
            raise located_yaml.FaultsError(faults)
        return content
