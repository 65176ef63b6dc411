"""Files through the part of the ingestion that reads and cleans: what the tests of files as people have them share."""

from datetime import date
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from components import utc
from components.example_gen.accounting import Accounting
from components.example_gen.cleaning import ACCOUNTING, CleanFiles, Cleaning, file_faults, from_bytes
from components.example_gen.columns import Column, catalogue_columns, interaction_columns
from components.example_gen.settings import SourceSettings
from components.example_gen.sources import SourceFile, Window
from components.utc import microseconds
from schemas.errors import UserError
from schemas.features import FeatureSpec, InteractionColumns

DAY = date(2026, 11, 24)
NINE = microseconds(DAY) + 9 * 3_600_000_000
SPEC: dict[str, Any] = {
    "interactions": {"user": "user", "item": "sku", "time": "at", "time_unit": "iso", "reward": "liked"},
    "catalogue": {"item": "sku", "title": "name"},
    "tables": {"sku": {"width": 4, "hash_buckets": 8}, "other": {"width": 2, "hash_buckets": 4}},
    "query": {"dev": {"kind": "id", "table": "other"}},
    "item": {"sku": {"kind": "id", "table": "sku"}, "tags": {"kind": "ids", "table": "other", "max_values": 3}},
}


def spec(**changed: dict[str, Any]) -> FeatureSpec:
    return FeatureSpec.model_validate({kind: {**SPEC[kind], **changed.get(kind, {})} for kind in SPEC})


def log_of(path: Path, time_unit: str = "iso", day: date | None = DAY, **settings: Any) -> tuple[pa.Table, Accounting]:
    keys = spec(interactions={"time_unit": time_unit})
    return clean(path, interaction_columns(keys), day, keys=keys.interactions, **settings)


def catalogue_of(path: Path, specification: FeatureSpec | None = None, **settings: Any) -> tuple[pa.Table, Accounting]:
    return clean(path, catalogue_columns(specification or spec()), None, time_range=None, **settings)


def clean(
    path: Path,
    columns: list[Column],
    day: date | None,
    time_range: tuple[int, int] | None = (microseconds(DAY), microseconds(date(2026, 11, 25))),
    form: Literal["csv", "parquet"] = "csv",
    window: Window | None = None,
    keys: InteractionColumns | None = None,
    **settings: Any,
) -> tuple[pa.Table, Accounting]:
    """The clean rows of a file, and what was counted; a fault of the whole file raises."""
    source = SourceSettings(path=str(path), format=form, **settings)
    if window:
        time_range = microseconds(window.history_start), window.end_microseconds
    closed = tuple(map(utc.span, window.closed)) if window else ()
    latest = microseconds(date(2027, 1, 1))
    cleaning = Cleaning(source, columns, "candidate_id", 1, 1024, time_range, latest, closed, keys)
    file = SourceFile(str(path), path.stat().st_size, 0.0, day)
    if faults := file_faults([file], cleaning):
        raise UserError("\n".join(faults))
    parts: list[bytes] = []
    accounting = Accounting()
    for output in CleanFiles(cleaning).process((0, file)):
        if getattr(output, "tag", None) == ACCOUNTING:
            accounting = output.value
        else:
            parts.append(output[1])
    if accounting.faults:
        raise UserError("\n".join(accounting.faults))
    return (from_bytes(parts) if parts else pa.table({})), accounting


def written(folder: Path, content: str | bytes, name: str = "part.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(rows: pa.Table, column: str) -> list[Any]:
    return [value.decode() if isinstance(value, bytes) else value for value in rows.column(column).to_pylist()]


def dropped(accounting: Accounting) -> dict[str, int]:
    return {reason: rows for reason, (rows, _) in accounting.dropped.items()}
