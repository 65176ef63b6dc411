"""Nothing is left out before it is counted: what lies where data is looked for."""

import bz2
import gzip
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from components.example_gen import sources
from components.example_gen.settings import ExampleGenSettings, SourceSettings
from components.example_gen.sources import Found, SourceFile, Window
from schemas.errors import UserError
from tests.components.cleaned import DAY, log_of, texts, written


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PAR1" + b"\0" * 200_000, "is a Parquet file. Say `format: parquet`"),
        (b"PK\x03\x04" + b"\1" * 200_000, "is a zip archive or a workbook"),
        (b"x" * 200_000, "does not begin with a header of CSV: field larger than field limit"),
        ("user,sku".encode("utf-16"), "is in UTF-16"),
        (b"\0\1\2,\3\n", "does not begin with a header|has a header that is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_csv_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    """Regression: a long first line was an error of Python's csv module, and a fault of ours."""
    with pytest.raises(UserError, match=f"part-0.csv: {words}"):
        log_of(written(tmp_path, content, "part-0.csv"))


@pytest.mark.parametrize("name", ["part.csv", "part.csv.gz"])
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, pa.Codec("zstd").compress])
def test_a_packed_file_is_read_whatever_its_name_and_to_the_end_of_its_last_part(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    """Files that were packed one by one and then put behind each other are one file."""
    first, second = b"user,sku,at,liked,dev\nu,A,2026-11-24T01:00:00Z,1,p\n", b"v,A,2026-11-24T01:00:00Z,1,p\n"
    path = written(tmp_path, b"".join(bytes(pack(each)) for each in (first, second)), name)
    assert texts(log_of(path)[0], "query_id") == ["u", "v"]


def day_files(folder: Path, **source: Any) -> Found:
    settings = ExampleGenSettings.model_validate(
        {
            "interactions": {"path": f"{folder}/log/{{YYYY}}-{{MM}}-{{DD}}", "format": "csv", **source},
            "catalogue": {"path": f"{folder}/cat/{{YYYY}}-{{MM}}-{{DD}}", "format": "csv"},
        }
    )
    return sources.interaction_files(settings, Window(DAY, DAY, DAY))


def names(found: Sequence[SourceFile]) -> list[str]:
    return [Path(file.path).name for file in found]


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    """Regression: a part whose share was not mounted was passed over without a word."""
    path = written(tmp_path / "log/2026-11-24", "x")
    link = path.with_name("part-2.csv")
    link.symlink_to("/mnt/away/part-2.csv")
    with pytest.raises(UserError, match=rf"{link} is a link to /mnt/away/part-2.csv, which leads nowhere"):
        day_files(tmp_path)
    link.unlink()
    link.symlink_to(path)
    assert names(day_files(tmp_path).files) == ["part-2.csv", "part.csv"]


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that others may look into, unlike those of pytest; the test then goes on as a user without rights."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        if not os.getuid():
            os.seteuid(0)


def test_a_folder_that_may_not_be_entered_is_named(shared: Path) -> None:
    """Regression: it was passed over without a word."""
    written(shared / "log/2026-11-24", "x")
    closed = written(shared / "log/2026-11-24/closed", "x").parent
    closed.chmod(0o700 if not os.getuid() else 0)
    if not os.getuid():
        os.seteuid(65534)
    with pytest.raises(UserError, match=rf"{closed} may not be looked into by user {os.geteuid()}"):
        day_files(shared)


def test_a_folder_by_a_link_is_read_and_a_circle_is_named(tmp_path: Path) -> None:
    elsewhere = written(tmp_path / "elsewhere", "x").parent
    (tmp_path / "log").mkdir()
    (tmp_path / "log/2026-11-24").symlink_to(elsewhere)
    assert names(day_files(tmp_path).files) == ["part.csv"]
    (elsewhere / "again").symlink_to(elsewhere)
    with pytest.raises(UserError, match="again is a link to a folder that it lies in"):
        day_files(tmp_path)


def test_a_catalogue_whose_link_leads_nowhere_is_not_replaced_by_an_older_one(tmp_path: Path) -> None:
    written(tmp_path / "cat/2026-11-23", "x")
    (tmp_path / "cat/2026-11-24").symlink_to("/mnt/away")
    settings = ExampleGenSettings.model_validate(
        {
            "interactions": {"path": "log", "format": "csv"},
            "catalogue": {"path": f"{tmp_path}/cat/{{YYYY}}-{{MM}}-{{DD}}", "format": "csv"},
        }
    )
    with pytest.raises(UserError, match="2026-11-24 is a link to /mnt/away, which leads nowhere"):
        sources.catalogue_files(settings, DAY)
    (tmp_path / "cat/2026-11-24").unlink()
    (tmp_path / "cat/2026-11-24").mkdir()  # nothing in it yet
    assert sources.catalogue_files(settings, DAY).files[0].day == date(2026, 11, 23)


@pytest.mark.parametrize("folder", ["more", "country=de/hour=00", "a/b/c/d"])
def test_folders_in_a_folder_are_refused_or_read_where_that_is_declared(tmp_path: Path, folder: str) -> None:
    """Regression: Hive's partitions of two levels beside a file were passed over without a word."""
    written(tmp_path / "log/2026-11-24", "x")
    deep = written(tmp_path / "log/2026-11-24" / folder, "x", "deep.csv")
    with pytest.raises(
        UserError, match=rf"found a folder that nothing would be read from: {deep}\. .* end the path in /\*\*"
    ):
        day_files(tmp_path)
    found = day_files(tmp_path, path=f"{tmp_path}/log/{{YYYY}}-{{MM}}-{{DD}}/**")
    assert sorted(names(found.files)) == ["deep.csv", "part.csv"]


def test_a_glob_takes_files_and_folders_alike(tmp_path: Path) -> None:
    """Regression: where a glob matched a folder, the files that it matched were passed over."""
    written(tmp_path / "log", "x", "2026-11-24.csv")
    written(tmp_path / "log/2026-11-24", "x")
    found = day_files(tmp_path, path=f"{tmp_path}/l?g/{{YYYY}}-{{MM}}-{{DD}}*")
    assert sorted(names(found.files)) == ["2026-11-24.csv", "part.csv"]


@pytest.mark.parametrize("name", ["part.csv._COPYING_", "part.csv.tmp", "part.csv~", "part.csv.crdownload"])
def test_a_half_written_file_is_named(tmp_path: Path, name: str) -> None:
    written(tmp_path / "log/2026-11-24", "x")
    path = written(tmp_path / "log/2026-11-24", "x", name)
    with pytest.raises(UserError, match=f"expected whole files, found {path}, half-written by the name"):
        day_files(tmp_path)


def test_files_that_are_passed_over_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "log/2026-11-24", "x").parent
    for name in ("_SUCCESS", ".part.csv.crc", "_DONE", "._part.csv", ".part.csv.tmp", "_temporary/0/part.csv"):
        written(folder, "x", name)
    found = day_files(tmp_path, success_marker="_DONE")
    assert names(found.files) == ["part.csv"]
    assert found.passed_over == [f"{folder}/{name}" for name in ("._part.csv", ".part.csv.tmp", "_temporary")]


def test_entries_that_are_not_files_are_named(tmp_path: Path) -> None:
    """A pipe would be waited for, for ever."""
    folder = written(tmp_path / "log/2026-11-24", "x").parent
    os.mkfifo(folder / "pipe.csv")
    with pytest.raises(UserError, match=r"pipe\.csv is neither a file nor a folder"):
        day_files(tmp_path)
    (folder / "pipe.csv").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s"))
        with pytest.raises(UserError, match="s is neither a file nor a folder"):
            day_files(tmp_path)


def test_a_marker_beside_files_that_are_named_one_by_one_counts(tmp_path: Path) -> None:
    folder = written(tmp_path / "log/2026-11-24", "x").parent
    path = f"{tmp_path}/log/{{YYYY}}-{{MM}}-{{DD}}/*.csv"
    with pytest.raises(UserError, match="expected the success marker _SUCCESS"):
        day_files(tmp_path, path=path, success_marker="_SUCCESS")
    written(folder, "", "_SUCCESS")
    assert names(day_files(tmp_path, path=path, success_marker="_SUCCESS").files) == ["part.csv"]


def test_with_a_file_a_day_the_days_are_recorded() -> None:
    """Regression: `ndr show` and `lineage` said the folder, and nothing of the days."""
    days = [SourceFile(f"/log/2026-11-{day}.csv", 5, 0.0, date(2026, 11, day)) for day in (22, 23, 24)]
    found = sources.summary(days)
    assert (found["first"], found["last"], found["folders"]) == ("/log/2026-11-22.csv", "/log/2026-11-24.csv", 1)
    parts = sources.summary(replace(file, day=DAY) for file in days)
    assert (parts["first"], parts["last"], parts["files"]) == ("/log", "/log", 3)


@pytest.mark.parametrize("delimiter", ['"', "\\", "\n", "é", "||", ""])
def test_invalid_delimiters_are_rejected(delimiter: str) -> None:
    with pytest.raises(ValidationError):
        SourceSettings(path="x", format="csv", delimiter=delimiter)
