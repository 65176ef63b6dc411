"""Imports TFX and TensorFlow without searching them for garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Exclude what is imported inside from this and later garbage collections: it stays until the process ends.

    Without this, the collections of a small day take a tenth of its processor seconds.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
