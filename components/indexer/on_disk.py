"""Arrays that lie on disk and are mapped into memory, for more embeddings than memory holds."""

from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray


def empty(rows: int, width: int) -> NDArray[np.float32]:
    """Return a [rows, width] array in a temporary file, which goes with the array.

    The operating system reads its pages as they are used and evicts them when memory is short. The file is in TMPDIR, which must
    not itself be in memory.
    """
    if not rows:  # a file without bytes cannot be mapped
        return np.empty((0, width), np.float32)
    with TemporaryFile() as file:
        return np.asarray(np.memmap(file, np.float32, "w+", shape=(rows, width)))


def copy(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Copy an array to disk."""
    copied = empty(*array.shape)
    copied[:] = array
    return copied
