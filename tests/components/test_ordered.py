"""The same examples are the same file, in whatever order and pieces they come."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st

from components.example_gen.ordered import write_in_order
from components.records import read_batches, read_records, write_records

EXAMPLES = [b"%d" % number for number in range(500)] + [b"twice"] * 2


def written(folder: Path, *pieces: list[bytes]) -> bytes:
    write_in_order(str(folder), 3, 7, pa.chunked_array([pa.array(piece, pa.binary()) for piece in pieces]))
    (path,) = folder.iterdir()
    assert path.name == "examples-00003-of-00007.gz"
    return path.read_bytes()


def test_neither_order_nor_pieces_show_in_the_file(tmp_path: Path) -> None:
    once = written(tmp_path / "once", EXAMPLES)
    assert written(tmp_path / "again", EXAMPLES[:-100:-1], [], EXAMPLES[:-99]) == once
    records = list(read_records([str(tmp_path / "once" / "examples-00003-of-00007.gz")]))
    assert sorted(records) == sorted(EXAMPLES)
    assert records[:500] != EXAMPLES[:500]  # what stood together is mixed


def test_a_batch_is_of_one_file(tmp_path: Path) -> None:
    paths = []
    for name in ("a", "b"):
        written(tmp_path / name, [b"x", b"y", b"z"])
        paths.append(str(tmp_path / name / "examples-00003-of-00007.gz"))
    assert [len(batch) for batch in read_batches(paths, 2)] == [2, 1, 2, 1]


@given(st.lists(st.binary(max_size=300), max_size=50))
@example([b""])
@example([])
@example([b"\xff" * 3_000_000, b"", b"\0" * 70_000])
def test_tensorflow_reads_our_records(records: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        path = str(Path(folder, "new", "examples.gz"))
        write_records(path, iter(records))
        assert list(tf.data.TFRecordDataset(path, compression_type="GZIP").as_numpy_iterator()) == records


def test_a_write_that_is_cut_short_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    def cut_short() -> Iterator[bytes]:
        yield from EXAMPLES
        raise InterruptedError

    with pytest.raises(InterruptedError):
        write_records(str(tmp_path / "examples.gz"), cut_short())
    assert not (tmp_path / "examples.gz").exists()
    write_records(str(tmp_path / "examples.gz"), EXAMPLES)
    assert [path.name for path in tmp_path.iterdir()] == ["examples.gz"]
