"""The rows of files: as their artifact counts them, or counted."""

from pathlib import Path

import pytest

from components.records import write_records
from components.transform.file_rows import rows_of_files, write_file_rows


@pytest.fixture
def split(tmp_path: Path) -> Path:
    split = tmp_path / "Split-train"
    assert write_records(str(split / "b.gz"), [b"one", b"two"]) == 2
    assert write_records(str(split / "a.gz"), [b"three"]) == 1
    assert write_records(str(split / "none.gz"), []) == 0
    return split


def test_files_are_counted_where_their_artifact_does_not(split: Path) -> None:
    rows = rows_of_files([f"{split}/*"])
    assert rows == {str(split / "a.gz"): 1, str(split / "b.gz"): 2, str(split / "none.gz"): 0}
    assert list(rows) == sorted(rows)


def test_what_the_artifact_counts_is_not_read(split: Path) -> None:
    write_file_rows({"b.gz": 2, "a.gz": 1, "none.gz": 0}, str(split.parent))
    for file in split.iterdir():
        file.write_bytes(b"cannot be read")
    assert list(rows_of_files([f"{split}/*"]).values()) == [1, 2, 0]
