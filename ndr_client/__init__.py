"""The client of ndr's servers: asks for recommendations. Imports neither TensorFlow nor anything else of ndr."""

from typing import TYPE_CHECKING, Any

from ndr_client.client import Answer, Client, Found
from ndr_client.connection import Tls
from ndr_client.examples import example

if TYPE_CHECKING:
    from ndr_client.faiss_client import FaissClient, VersionError

__all__ = ["Answer", "Client", "FaissClient", "Found", "Tls", "VersionError", "example"]


def __getattr__(name: str) -> Any:
    """Import FAISS and Arrow, an extra, only when they are used."""
    if name in ("FaissClient", "VersionError"):
        from ndr_client import faiss_client

        return getattr(faiss_client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
