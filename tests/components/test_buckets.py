"""Data in an object store is found and read as the same data in a folder is."""

import gzip
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from components import object_store
from components.example_gen import listing, reading, sources
from components.example_gen.csv_lines import FileFaultError
from components.example_gen.settings import SourceSettings
from schemas.errors import PassingError, UserError
from tests.object_stores import SCHEMES, emulated, put

FILES = (
    "logs/2026-11-27/_SUCCESS",
    "logs/2026-11-27/part-0.csv",
    "logs/2026-11-27/.part-0.csv.crc",
    "logs/2026-11-28/part-0.csv",
    "logs/2026-11-28/hour=01/part-1.csv",
    "logs/2026-11-28/hour=01/_temporary/0/part-1.csv",
    "logs/2026-11-28/_temporary/0/part-2.csv",
    "logs/2026-11-28b/part-0.csv",
    "logs/other.txt",
    "items.csv",
)
PATHS = (
    "logs/2026-11-27",
    "logs/2026-11-27/part-0.csv",
    "logs/2026-11-28",
    "logs/2026-11-28/**",
    "logs/2026-11-2?",
    "logs/*/part-0.csv",
    "logs/*/hour=*",
    "items.csv",
    "*.csv",
    "nothing",
    "logs/2026-11",
    "nothing/*",
)


@pytest.fixture(scope="module", params=SCHEMES)
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    with emulated(request.param) as address:
        for name in FILES:
            put(f"{address}/shop/{name}", name.encode())
        yield address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize("path", PATHS)
def test_the_same_is_found_as_in_a_folder(bucket: str, folder: Path, path: str) -> None:
    """Contract: what a store lists is what this machine lists of the same files, with depth and size."""

    def told(root: str) -> list[tuple[str, int, int]]:
        found = listing.listed(f"{root}/{path}")
        return [
            (entry.path.removeprefix(root), entry.depth, 0 if entry.path.endswith("_temporary") else entry.size)
            for entry in found
        ]

    assert told(f"{bucket}/shop") == told(str(folder))
    assert [each.removeprefix(f"{bucket}/shop") for each in listing.expanded(f"{bucket}/shop/{path}")] == [
        each.removeprefix(str(folder)) for each in listing.expanded(f"{folder}/{path}")
    ]


def test_the_days_of_a_table_are_found(bucket: str) -> None:
    source = SourceSettings(
        path=f"{bucket}/shop/logs/{{YYYY}}-{{MM}}-{{DD}}/**", format="csv", success_marker="_SUCCESS"
    )
    found = sources.newest_files(source, date(2026, 11, 27), "catalogue")
    assert [(file.path, file.size, file.day) for file in found.files] == [
        (f"{bucket}/shop/logs/2026-11-27/part-0.csv", 26, date(2026, 11, 27))
    ]
    assert found.files[0].modified > 1_700_000_000
    with pytest.raises(sources.NotYetThereError, match=r"_SUCCESS in .*2026-11-28"):
        sources.newest_files(source, date(2026, 11, 28), "catalogue")
    with pytest.raises(UserError, match=f"No catalogue of 2026-11-26 or before at {bucket}"):
        sources.newest_files(source, date(2026, 11, 26), "catalogue")


@pytest.mark.parametrize("name", ["plain.csv", "packed.csv.gz", "packed"])
def test_csv_is_read(bucket: str, name: str) -> None:
    text = b"user,item\n" + b"".join(b"u%d,i%d\n" % (row, row % 7) for row in range(200_000))
    put(f"{bucket}/csv/{name}", text if name == "plain.csv" else gzip.compress(text))
    source = SourceSettings(path=f"{bucket}/csv/{name}", format="csv")
    assert list(reading.column_types(source.path, source)) == ["user", "item"]
    batches = list(reading.read(source.path, source, ["item"], lambda *_: None))
    assert np.concatenate([batch.rows for batch in batches]).tolist() == list(range(2, 200_002))
    # 199,999 = 7 * 28,571 + 2.
    assert pa.concat_arrays([batch.columns["item"] for batch in batches])[-1].as_py() == b"i2"


def test_parquet_is_read(bucket: str, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"user": range(1000), "item": range(1000)}), tmp_path / "rows", row_group_size=300)
    put(f"{bucket}/rows.parquet", (tmp_path / "rows").read_bytes())
    source = SourceSettings(path=f"{bucket}/rows.parquet", format="parquet")
    (batch,) = reading.read(source.path, source, ["item"], lambda *_: None)
    assert batch.columns["item"].to_pylist() == list(range(1000))


def test_a_file_that_is_gone_is_a_fault_of_it(bucket: str) -> None:
    source = SourceSettings(path=f"{bucket}/gone.csv", format="csv")
    with pytest.raises(FileFaultError, match=r"cannot be opened: .*gone\.csv: there is no such file"):
        reading.column_types(source.path, source)


@pytest.mark.parametrize("path", ["s3://bucket", "gs://bucket/a/{YYYY}-{MM}-{DD}/*.csv", "s3://bucket/**"])
def test_addresses_of_stores_are_places_of_data(path: str) -> None:
    assert SourceSettings(path=path, format="csv").path == path


@pytest.mark.parametrize(
    "path",
    ["s3://id:hunter2@bucket/x", "S3://bucket/x", "hdfs://hunter2/x", "s3://", "s3:///x", "gs://{YYYY}{MM}{DD}/x"],
)
def test_other_addresses_are_refused_and_not_shown(path: str) -> None:
    with pytest.raises(ValueError, match="expected a path of this machine, or an address s3://bucket") as raised:
        SourceSettings(path=path, format="csv")
    assert "hunter2" not in str(raised.value).partition("[type=")[0]


def test_a_store_that_is_away_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(PassingError, match="s3://bucket/logs: the object store says: "):
        listing.listed("s3://bucket/logs")
    with pytest.raises(PassingError):  # no fault of the file, which would end the day
        reading.column_types("s3://bucket/logs.csv", SourceSettings(path="s3://bucket/logs.csv", format="csv"))


def test_an_address_with_credentials_is_not_shown() -> None:
    with pytest.raises(UserError, match="without credentials") as raised:
        object_store.file_system("s3://id:hunter2@bucket/x")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("endpoint", ["ftp://minio", "http://", "http://minio/path", "http://id:hunter2@minio"])
def test_an_endpoint_that_is_none_is_reported(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    with pytest.raises(UserError, match="AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL: expected the endpoint") as raised:
        object_store.file_system("s3://bucket/x")
    assert "hunter2" not in str(raised.value)
