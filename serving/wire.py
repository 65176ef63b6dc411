"""Counts the entries of a map in a serialised protocol buffer before it is parsed.

Parsing a map of 350,000 entries, which fits into four megabytes, takes seconds, in which no other thread of Python runs.
"""

from collections.abc import Iterator
from itertools import islice

from serving.errors import invalid

MOST_ENTRIES = 10_000
_FIXED = {1: 8, 5: 4}  # bytes of values by wire type
_VARINT, _BYTES = 0, 2  # wire types


def check_entries(name: str, content: bytes, *path: int) -> None:
    """Count the entries of a map. Anything but a protocol buffer is left to its parser.

    Args:
        name: the map's name, in the error.
        content: a serialised message.
        path: the field numbers that lead to the map, with the map's own at the end.

    Raises:
        RequestError: INVALID_ARGUMENT, there are more than MOST_ENTRIES.
    """
    if (
        len(content) > MOST_ENTRIES
        and sum(1 for _ in islice(_at(memoryview(content), path), MOST_ENTRIES + 1)) > MOST_ENTRIES
    ):
        raise invalid(f"expected at most {MOST_ENTRIES} {name}, received more")


def _at(content: memoryview, path: tuple[int, ...]) -> Iterator[memoryview]:
    for number, value in _fields(content):
        if number == path[0]:
            if len(path) == 1:
                yield value
            else:
                yield from _at(value, path[1:])


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of each length-delimited field: messages, texts, bytes, and packed lists."""
    at = 0
    try:
        while at < len(content):
            tag, at = _varint(content, at)
            if tag & 7 == _VARINT:
                _, at = _varint(content, at)
            elif tag & 7 == _BYTES:
                size, at = _varint(content, at)
                yield tag >> 3, content[at : at + size]
                at += size
            else:
                at += _FIXED.get(tag & 7, 0)
    except IndexError:  # it ends within a number
        return


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """Return a number, and the position after it."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return value, at
