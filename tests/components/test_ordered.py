"""The same examples are the same file, in whatever order and pieces they come."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st

from components.example_gen.ordered import write_in_order
from components.records import read_batches, read_records, write_records
from schemas.errors import UserError

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


@given(st.lists(st.binary(max_size=300), max_size=50), st.integers(1, 100))
@example([b"\xff" * 3_000_000, b"", b"\0" * 70_000], 1 << 18)
@example([], 1)
def test_records_of_tensorflow_are_read_wherever_a_piece_of_the_file_ends(records: list[bytes], piece: int) -> None:
    with TemporaryDirectory() as folder, mock.patch("components.records.READ_BYTES", piece):
        path = str(Path(folder, "examples.gz"))
        with tf.io.TFRecordWriter(path, tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
            for record in records:
                writer.write(record)
        assert list(read_records([path, path])) == records * 2


def whole(folder: Path) -> bytes:
    write_records(str(folder / "whole.gz"), EXAMPLES)
    return (folder / "whole.gz").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data + b"more",
        lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],  # a byte of the checksum
        lambda data: b"not gzip" + data,
        lambda data: gzip.compress(gzip.decompress(data)[:-1]),  # whole, but its last record is not
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "examples.gz"
    path.write_bytes(damage(whole(tmp_path)))
    with pytest.raises(UserError, match=f"{path}: expected a gzipped TFRecord, found"):
        list(read_records([str(path)]))


def test_a_write_that_is_cut_short_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    def cut_short() -> Iterator[bytes]:
        yield from EXAMPLES
        raise InterruptedError

    with pytest.raises(InterruptedError):
        write_records(str(tmp_path / "examples.gz"), cut_short())
    assert not (tmp_path / "examples.gz").exists()
    write_records(str(tmp_path / "examples.gz"), EXAMPLES)
    assert [path.name for path in tmp_path.iterdir()] == ["examples.gz"]
