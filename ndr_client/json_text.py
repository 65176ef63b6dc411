"""Parses JSON that others wrote, after its nesting is known."""

import json
import re
from typing import Any

import numpy as np

ESCAPED = re.compile(rb"\\.", re.DOTALL)
QUOTE, OPENING, CLOSING = b'"'[0], b"{"[0], b"}"[0]
BRACE = 0x20  # [ and ] differ from { and } by this bit
DEEPEST = 64  # more than anything that is read here has


def parse(text: bytes) -> Any:
    """Parse JSON.

    Python's parser goes as deep as the interpreter allows before it gives up. If the garbage collector runs there, finalizers
    cannot call anything, and what they would release stays held.

    Args:
        text: UTF-8, at most `DEEPEST` levels of lists and objects; NaN, Infinity and -Infinity are numbers.

    Raises:
        ValueError: it is something else.
    """
    if (depth := nesting(text)) > DEEPEST:
        raise ValueError(f"expected at most {DEEPEST} levels of lists and objects, received {depth}")
    return json.loads(text.decode())


def nesting(text: bytes) -> int:
    """Return how many lists and objects of a JSON text are open at once, at most."""
    signs = np.frombuffer(ESCAPED.sub(b"", text) if b"\\" in text else text, np.uint8)
    within = np.cumsum(signs == QUOTE, dtype=np.uint8) & 1  # wraps around, which leaves what is odd odd
    braces = (signs | BRACE)[within == 0]
    steps = (braces == OPENING).astype(np.int8) - (braces == CLOSING).astype(np.int8)
    return int(np.cumsum(steps[steps != 0], dtype=np.int64).max(initial=0))
