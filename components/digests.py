"""Digests of ids and examples: the same in every process, and in every release, because what was written depends on them."""

import hashlib


def digest(content: bytes, size: int, span: int | None = None) -> bytes:
    """Return `size` bytes of BLAKE2b: by the content alone, or other ones for each span (days since 1970-01-01)."""
    return hashlib.blake2b(content, digest_size=size, salt=b"" if span is None else span.to_bytes(8, "big")).digest()


def number(content: bytes, span: int | None = None) -> int:
    """Return a number below 2**64, uniform over contents."""
    return int.from_bytes(digest(content, 8, span), "big")


def is_drawn(content: bytes, span: int, share: float) -> bool:
    """Return whether an id is in the share that is drawn for a span."""
    return number(content, span) < share * 2**64


def partition_of(identifier: bytes, partitions: int) -> int:
    """Return the partition of an id when ids are divided into `partitions`."""
    return number(identifier) % partitions
