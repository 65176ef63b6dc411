"""Maps item ids to rows of the catalogue."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components import ragged
from components.decoded import lists
from components.evaluator.query_items import Excluded


def positions(ids: pa.Array, catalogue: pa.Array) -> NDArray[np.int64]:
    """Map item ids, or lists of one id each, to rows of the catalogue; -1 for an item that it lacks."""
    values = pc.list_flatten(ids) if pa.types.is_list(ids.type) or pa.types.is_large_list(ids.type) else ids
    rows = pc.index_in(values.cast(pa.binary()), value_set=catalogue)
    return pc.fill_null(rows, -1).to_numpy(zero_copy_only=False).astype(np.int64)


def rows_of_lists(batch: pa.RecordBatch, feature: str | None, catalogue: pa.Array) -> Excluded:
    """Return the rows of the items in each query's history, oldest first, without items that the catalogue lacks."""
    ids = lists(batch, feature)
    rows = positions(ids.values, catalogue)
    return Excluded(ragged.offsets(rows >= 0)[ids.offsets.to_numpy()], rows[rows >= 0])
