"""What the benchmark of reading compares does the same work: every way leaves every row."""

from pathlib import Path

import pytest

from benchmarks.reading import WAYS, clean, write_log


@pytest.mark.parametrize("way", WAYS)
def test_every_way_leaves_every_row(tmp_path: Path, way: str) -> None:
    log = tmp_path / "log.csv"
    write_log(log, 500)
    assert clean(log, way) == 500
