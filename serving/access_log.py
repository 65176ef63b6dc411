"""The access log: a line of JSON for each request, or for a share of them."""

import json
import logging
import random
import sys
from datetime import UTC, datetime
from pathlib import Path

import grpc

from schemas.private_log import PrivateRotatingFileHandler
from serving.record import Record
from serving.settings import AccessLogSettings

# Logged whatever the share: faults of the server, not of the client.
FAULTS = {
    grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}  # fmt: skip


class AccessLog:
    """Writes the access log.

    Args:
        settings: which, and where to.
        root: what a path is relative to.
    """

    def __init__(self, settings: AccessLogSettings, root: Path) -> None:
        self._share = settings.share
        self._random = random.Random()
        self._handler: logging.Handler
        if settings.path is None:
            self._handler = logging.StreamHandler(sys.stderr)
        else:
            path = root / settings.path
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handler = PrivateRotatingFileHandler(
                path, maxBytes=settings.file_bytes, backupCount=settings.files - 1, encoding="utf-8"
            )
        self._logger = logging.Logger("access", logging.INFO)  # of its own: neither the root's handlers nor its level
        self._logger.addHandler(self._handler)

    def observe(self, record: Record) -> None:
        """Write a line about a share of the requests, drawn at random, and about every fault of the server."""
        if not self._share or (record.code not in FAULTS and self._random.random() >= self._share):
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "peer": record.peer,
            "api": record.api,
            "method": record.method,
            "model": record.model,
            "version": record.version,
            "signature": record.signature,
            "rows": record.extent.rows if record.extent else None,
            "k": record.extent.items if record.extent else None,
            "bytes": record.received_bytes,
            "code": record.code.name,
            "ms": round(1000 * record.seconds, 3),
        }
        self._logger.info(json.dumps(line))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()
