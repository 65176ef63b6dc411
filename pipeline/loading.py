"""Imports TFX and TensorFlow without searching them for garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Exclude what is imported inside from this and later garbage collections: it stays until the process ends.

    Without this, the collections of a small day take a tenth of its processor seconds. Only the first time in a process: later, it
    would keep the graphs of a backfill's days before, too, which are garbage that only a collection finds.
    """
    if gc.get_freeze_count() or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
