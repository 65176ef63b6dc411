"""Nothing is left out before it is counted: files as people have them, through the part of the ingestion that reads and cleans."""

import bz2
import gzip
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from components.example_gen import sources
from components.example_gen.accounting import Accounting
from components.example_gen.cleaning import ACCOUNTING, CleanFiles, Cleaning, file_faults, from_bytes
from components.example_gen.columns import Column, catalogue_columns, interaction_columns
from components.example_gen.settings import ExampleGenSettings, SourceSettings
from components.example_gen.sources import Found, SourceFile, Window, microseconds
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
    form: str = "csv",
    window: Window | None = None,
    keys: InteractionColumns | None = None,
    **settings: Any,
) -> tuple[pa.Table, Accounting]:
    """The clean rows of a file, and what was counted; a fault of the whole file raises."""
    source = SourceSettings(path=str(path), format=form, **settings)
    if window:
        time_range = microseconds(window.history_start), window.end_microseconds
    closed = tuple(map(sources.span, window.closed)) if window else ()
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


# CSV that other programs write


SPARK = r"""user,sku,at,liked,dev
"u \"x\" 1",A,2026-11-24T01:00:00Z,1,p
"u \"y, z\"",A,2026-11-24T01:00:00Z,1,p
v,"D\"1\"",2026-11-24T22:30:00Z,1,\N
"""


def test_quotes_behind_backslashes_are_refused_or_read_where_they_are_declared(tmp_path: Path) -> None:
    """Regression: Spark's quotes were read as text with backslashes, and users of one name became two."""
    path = written(tmp_path, SPARK)
    with pytest.raises(
        UserError, match=r"part.csv: has text behind a closing quote in line 2\. .*`quoting: backslash`"
    ):
        log_of(path)
    rows, accounting = log_of(path, quoting="backslash", null_values=[r"\N"])
    assert not accounting.dropped
    assert texts(rows, "query_id") == ['u "x" 1', 'u "y, z"', "v"]
    assert texts(rows, "candidate_id") == ["A", "A", 'D"1"'] and texts(rows, "dev") == ["p", "p", None]


def test_a_backslash_at_the_end_of_a_quoted_value_is_no_escape(tmp_path: Path) -> None:
    path = written(tmp_path, 'user,sku,at,liked,dev\n"C:\\",A,2026-11-24T01:00:00Z,1,"say ""x, y"" z"\n')
    rows, _ = log_of(path)
    assert texts(rows, "query_id") == ["C:\\"] and texts(rows, "dev") == ['say "x, y" z']


HIVE = 'sku\tname\ttags\nA\tVinyl 12" long play\tx|y\nB\t"Bee\tq\nC\t"Cat" and dog\tz\n'


def test_a_table_without_quoting_is_read_where_that_is_declared(tmp_path: Path) -> None:
    path = written(tmp_path, HIVE)
    with pytest.raises(UserError, match=r"has a quote in line 2 that this line does not close.*`quoting: none`"):
        catalogue_of(path, delimiter="\t")
    rows, accounting = catalogue_of(path, delimiter="\t", quoting="none")
    assert not accounting.dropped
    assert texts(rows, "title") == ['Vinyl 12" long play', '"Bee', '"Cat" and dog']


def test_text_behind_a_closing_quote_is_refused(tmp_path: Path) -> None:
    """Regression: an even number of stray quotes was taken for quoting, and left out of the value."""
    path = written(tmp_path, 'sku\tname\ttags\nA\ta 7" and a 12" disc\tx\nC\t"Cat" and dog\tz\n')
    with pytest.raises(UserError, match="has text behind a closing quote in line 3"):
        catalogue_of(path, delimiter="\t")
    rows, _ = catalogue_of(written(tmp_path, path.read_bytes().replace(b'"Cat"', b"Cat")), delimiter="\t")
    assert texts(rows, "title") == ['a 7" and a 12" disc', "Cat and dog"]


LINES = b"""\xef\xbb\xbfuser,sku,at,liked,dev\r
u,A,2026-11-24T01:00:00Z,1,30\r
\r
\r
user,sku,at,liked,dev\r
\r
u,B,not a time,1,30\r
u,B\r
v,B,2026-11-24T23:30:00Z,1,3\r
w,B,2026-11-24T23:30:00Z,2,3\r
"""


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
def test_line_numbers_are_those_of_the_file(tmp_path: Path, end: bytes) -> None:
    """Regression: empty lines and the header were not counted, so that the number led to another row."""
    path = written(tmp_path, LINES.replace(b"\r\n", end))
    rows, accounting = log_of(path)
    assert texts(rows, "query_id") == ["u", "v"]
    assert {reason: places for reason, (_, places) in accounting.dropped.items()} == {
        "the header once more": [f"{path} line 5"],
        "at: not a time in iso": [f"{path} line 7: 'not a time'"],
        "rows with 2 columns instead of 5": [f"{path} line 8"],
        "liked: outside [0, 1]": [f"{path} line 10: '2'"],
    }
    assert accounting.rows == 6


def test_line_numbers_hold_where_values_span_lines_and_over_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.example_gen.reading.BLOCK_BYTES", 64)
    content = (
        'user,sku,at,liked,dev\n"u\n\n1",A,2026-11-24T01:00:00Z,1,p\n\nv,A,2026-11-24T02:00:00Z,1,p\nw,A,never,1,p\n'
    )
    path = written(tmp_path, content)
    rows, accounting = log_of(path, quoted_newlines=True)
    assert texts(rows, "query_id") == ["u\n\n1", "v"]
    # The header is line 1, the value lines 2 to 4, then an empty line, v and w.
    assert accounting.dropped == {"at: not a time in iso": (1, [f"{path} line 7: 'never'"])}


def test_a_line_longer_than_a_block_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.example_gen.reading.BLOCK_BYTES", 1 << 20)
    path = written(tmp_path, "user,sku,at,liked,dev\nu,A,2026-11-24T01:00:00Z,1," + "p" * (1 << 20) + "\n")
    with pytest.raises(UserError, match="has a line of more than 1 MiB, line 2"):
        log_of(path)


def test_columns_without_a_name_behind_the_others_are_no_fault(tmp_path: Path) -> None:
    path = written(
        tmp_path, "user,sku,at,liked,dev,,\nu,A,2026-11-24T01:00:00Z,1,p,,\nv,B,2026-11-24T02:00:00Z,1,p,,\n"
    )
    rows, accounting = log_of(path)
    assert not accounting.dropped and texts(rows, "query_id") == ["u", "v"]


def test_blanks_around_ids_are_told_or_removed(tmp_path: Path) -> None:
    path = written(
        tmp_path, "user, sku,at,liked,dev\n u1,A ,2026-11-24T01:00:00Z, 1 ,\u00a0\nu 2,A,2026-11-24T02:00:00Z,1,p\n"
    )
    with pytest.raises(UserError, match="expected a column sku without blanks around it; say `trim: true`"):
        log_of(path)
    rows, accounting = log_of(path, trim=True)
    assert not accounting.dropped
    assert (texts(rows, "query_id"), texts(rows, "candidate_id")) == (["u1", "u 2"], ["A", "A"])
    assert texts(rows, "dev") == [None, "p"]
    named = written(tmp_path, path.read_text().replace(" sku", "sku"))
    rows, accounting = log_of(named)
    assert texts(rows, "query_id") == ["u 2"]
    assert accounting.dropped == {"user: blanks around it": (1, [f"{named} line 2: ' u1'"])}
    assert accounting.ways_out == {"user: blanks around it": "Say `trim: true`, or write it without blanks."}


# Words for what is missing


def test_usual_spellings_of_a_missing_value_are_no_ids_but_where_that_is_declared(tmp_path: Path) -> None:
    """Regression: everyone whom Hive or pandas did not know was one user, NULL or nan, with a common history."""
    words = ["NULL", "None", r"\N", "NaN", "<NA>", "nan"]
    lines = [f"{word},A,2026-11-24T0{hour}:00:00Z,1,p" for hour, word in enumerate(words)]
    others = ["v,A,2026-11-24T09:00:00Z,1,NULL", "w,A,2026-11-24T09:00:00Z,1,"]
    path = written(tmp_path, "\n".join(["user,sku,at,liked,dev", *lines, *others]))
    rows, accounting = log_of(path)
    assert texts(rows, "query_id") == ["w"]
    assert dropped(accounting) == {
        "user: a usual spelling of a missing value": 6,
        "dev: a usual spelling of a missing value": 1,
    }
    assert accounting.ways_out["dev: a usual spelling of a missing value"] == (
        "Say `null_values: ['NULL']` where these stand for a missing value, `null_values: []` where they are ids."
    )
    rows, accounting = log_of(path, null_values=words)
    assert dropped(accounting) == {"user: missing": 6}
    assert texts(rows, "query_id") == ["v", "w"] and texts(rows, "dev") == [None, None]
    rows, accounting = log_of(path, null_values=[])
    assert not accounting.dropped and texts(rows, "query_id")[:2] == ["NULL", "None"]


def test_a_spelling_of_a_missing_number_names_the_way_out(tmp_path: Path) -> None:
    path = written(tmp_path, "user,sku,at,liked,dev\nv,A,2026-11-24T09:00:00Z,NULL,p\nv,A,2026-11-24T09:00:00Z,nan,p\n")
    _, accounting = log_of(path)
    assert dropped(accounting) == {"liked: not a number": 1, "liked: missing": 1}
    assert accounting.ways_out == {
        "liked: not a number": "Say `null_values: ['NULL']` where these stand for a missing value."
    }


def test_a_missing_value_in_a_list_is_no_value(tmp_path: Path) -> None:
    path = written(tmp_path, "sku,name,tags\nA,a,x|NULL|y\nB,b,NULL\n")
    rows, accounting = catalogue_of(path, null_values=["NULL"])
    assert not accounting.dropped and rows.column("tags").to_pylist() == [[b"x", b"y"], None]
    assert dropped(catalogue_of(path)[1]) == {"tags: a usual spelling of a missing value": 2}


# Numbers and truth values


def test_truth_values_of_csv_are_numbers(tmp_path: Path) -> None:
    """Regression: the items of a catalogue whose column said true were dropped, those that said 1 were blocked."""
    words = ["false", "true", "False", "TRUE", "t", "f", "1", "0", "", "yes"]
    path = written(tmp_path, "sku,name,tags,hidden\n" + "".join(f"{n},n,,{word}\n" for n, word in enumerate(words)))
    rows, accounting = catalogue_of(path, spec(catalogue={"blocked": "hidden"}))
    assert rows.column("_blocked").to_pylist() == [0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, None]
    assert accounting.dropped == {"hidden: not a number": (1, [f"{path} line 11: 'yes'"])}


@pytest.mark.parametrize(("scale", "most"), [("none", 1e14), ("zscore", 1e18), ("log", 1e18)])
def test_a_number_that_stands_for_no_number_is_a_fault(tmp_path: Path, scale: str, most: float) -> None:
    """Regression: an item whose price was FLT_MAX had the zero vector, and scored 0 for every query."""
    numbers = [
        "3.4e38",
        "1.7976931348623157e308",
        "9223372036854775807",
        "-9223372036854775808",
        "1e30",
        f"{most:g}",
        "0.5",
    ]
    path = written(
        tmp_path, "sku,name,tags,price\n" + "".join(f"{n},n,,{number}\n" for n, number in enumerate(numbers))
    )
    rows, accounting = catalogue_of(path, spec(item={"price": {"kind": "number", "scale": scale}}))
    assert rows.column("price").to_pylist() == pytest.approx([most, 0.5])
    assert sum(dropped(accounting).values()) == 5
    assert all("empty value or NaN" in words for words in accounting.ways_out.values())


def test_a_decimal_comma_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, 'user,sku,at,liked,dev\nv,A,2026-11-24T09:00:00Z,"0,5",p\n')
    assert log_of(path)[1].ways_out == {"liked: not a number": "Write a decimal point, not a comma."}


# Ids and weights


WEIGHTED = {"tags": {"kind": "ids", "table": "other", "max_values": 3, "weights": "w"}}


def test_an_id_keeps_its_weight_where_one_beside_it_is_missing(tmp_path: Path) -> None:
    """Regression: what was missing was taken out of both lists, and the weight of one id became another's."""
    table = pa.table(
        {
            "sku": ["A", "B", "C", "D"],
            "name": ["a", "b", "c", "d"],
            "tags": [["x", None, "z"], ["x", "y"], ["x", "y"], None],
            "w": pa.array([[1.0, 2.0, 3.0], [None, 2.0], [1.0], None], pa.list_(pa.float64())),
        }
    )
    path = tmp_path / "part.parquet"
    parquet.write_table(table, path)
    rows, accounting = catalogue_of(path, spec(item=WEIGHTED), form="parquet")
    assert rows.column("tags").to_pylist() == [[b"x", b"z"], None]
    assert rows.column("tags_weights").to_pylist() == [[1.0, 3.0], None]
    # B has an id without a weight, C two ids and one weight.
    assert accounting.dropped == {"tags_weights: another number than of tags": (2, [f"{path} row 2", f"{path} row 3"])}


def test_ids_in_a_text_keep_their_weights_too(tmp_path: Path) -> None:
    path = written(tmp_path, "sku,name,tags,w\nA,a,x||z,1|2|3\nB,b,x|y,1|2\nC,c,x||z,1|2|\nD,d,x||z,1|3\n")
    rows, accounting = catalogue_of(path, spec(item=WEIGHTED))
    assert rows.column("tags").to_pylist() == [[b"x", b"z"], [b"x", b"y"]]
    assert rows.column("tags_weights").to_pylist() == [[1.0, 3.0], [1.0, 2.0]]
    assert dropped(accounting) == {"tags_weights: another number than of tags": 2}


# Types of Parquet


@pytest.mark.parametrize(
    ("ids", "read", "faults"),
    [
        (pa.array([13.0, None, 1e16, 13.5, float("nan")]), ["13"], 2),  # what is past 2^53 may be another's
        (pa.array([Decimal("13.00"), None, Decimal("14.50"), None, None], pa.decimal128(10, 2)), ["13"], 1),
        (pa.array([Decimal(10**20), None, None, None, None], pa.decimal128(38, 0)), [str(10**20)], 0),
        (pa.array([13, None, None, None, None], pa.uint64()), ["13"], 0),
        (pa.array(["13", None, None, None, None]).dictionary_encode(), ["13"], 0),
    ],
)
def test_whole_numbers_are_ids_whatever_their_type(tmp_path: Path, ids: pa.Array, read: list[str], faults: int) -> None:
    """Regression: pandas makes floats of whole numbers where one is missing, and those were refused."""
    path = tmp_path / "part.parquet"
    parquet.write_table(pa.table({"sku": ids, "name": ["a"] * 5, "tags": pa.array([[1.0, 2.0]] * 5)}), path)
    rows, accounting = catalogue_of(path, form="parquet")
    assert texts(rows, "candidate_id") == read and rows.column("tags").to_pylist() == [[b"1", b"2"]]
    assert dropped(accounting).get("sku: not a whole number", 0) == faults
    assert dropped(accounting)["sku: missing"] == 4 - faults


def test_lists_of_a_fixed_size_are_lists(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    tags = pa.array([["x", "y"], ["", None], ["z", None]], pa.list_(pa.string(), 2))
    parquet.write_table(pa.table({"sku": ["A", "B", "C"], "name": ["a"] * 3, "tags": tags}), path)
    rows, accounting = catalogue_of(path, form="parquet")
    assert not accounting.dropped and rows.column("tags").to_pylist() == [[b"x", b"y"], [], [b"z"]]


@pytest.mark.parametrize(
    ("column", "values", "way_out"),
    [
        (
            "user",
            pa.array([b"0123456789abcdef"], pa.binary(16)),
            r"found fixed_size_binary\[16\]; write it as text, a UUID",
        ),
        ("at", pa.array(["2026-11-24T09:00:00Z"]), "found string; say `time_unit: iso`"),
        ("at", pa.array([DAY]), r"found date32\[day\]; write a timestamp"),
        ("user", pa.array([["u"]]), "found list.*; a feature of kind `ids` has several values"),
    ],
)
def test_a_type_that_is_not_read_names_the_way_out(tmp_path: Path, column: str, values: pa.Array, way_out: str) -> None:
    table = {
        "user": pa.array(["u"]),
        "sku": pa.array(["A"]),
        "at": pa.array([1.0]),
        "liked": [1.0],
        "dev": ["p"],
        column: values,
    }
    path = tmp_path / "part.parquet"
    parquet.write_table(pa.table(table), path)
    with pytest.raises(UserError, match=f"in column {column}, {way_out}"):
        log_of(path, time_unit="s", form="parquet")


@pytest.mark.parametrize("title", ["x" * 1025, "Cr\udce8me br\udcfbl\udce9e", "é" * 600])
def test_a_title_never_costs_its_item(tmp_path: Path, title: str) -> None:
    """Regression: a title of 1,025 bytes, or one in cp1252, took its item out of the catalogue."""
    path = written(tmp_path, f"sku,name,tags\nA,{title},x\nB,Bee,\n".encode("utf-8", "surrogateescape"))
    rows, accounting = catalogue_of(path)
    assert not accounting.dropped and texts(rows, "candidate_id") == ["A", "B"]
    shown = texts(rows, "title")[0]
    assert 0 < len(shown.encode()) <= 1024 and shown[0] == title[0] and texts(rows, "title")[1] == "Bee"


def test_a_title_may_be_a_number(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    parquet.write_table(pa.table({"sku": ["A", "B"], "name": [1984, None], "tags": ["x", "y"]}), path)
    assert texts(catalogue_of(path, form="parquet")[0], "title") == ["1984", None]


# Times


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-24 09:00:00 UTC",  # BigQuery
        "2026-11-24 09:00:00.000000 UTC",
        "2026-11-24T09:00:00.000+0000",  # Spark
        "2026-11-24T09:00:00.000000000Z",  # Java
        "2026-11-24 10:00:00+01",  # PostgreSQL
        "20261124T090000Z",
        "2026-W48-2T09:00:00Z",
        "2026-11-24T09:00:00,0Z",
        "2026-11-24t09:00:00z",
        "2026-11-24T10:00:00 +01:00",
        " 2026-11-24T09:00:00Z ",
        "2026-11-24 09:00",
    ],
)
def test_iso_8601_is_read_as_others_write_it(tmp_path: Path, text: str) -> None:
    rows, accounting = log_of(written(tmp_path, f'user,sku,at,liked,dev\nu,A,"{text}",1,p\n'))
    assert not accounting.dropped and rows.column("timestamp").to_pylist() == [NINE]


@pytest.mark.parametrize(
    ("text", "way_out"),
    [
        ("24/11/2026 01:00:04", "ISO 8601 is read, such as"),
        ("11/24/2026 1:00:05 AM", "ISO 8601 is read, such as"),
        ("2026-11-24T23:59:60Z", "ISO 8601 is read, such as"),
        ("2026-11-24T01:00:10[Europe/Berlin]", "ISO 8601 is read, such as"),
        ("1795482012", "'1795482012' looks like s since 1970; where all are, say `time_unit: s`."),
        ("1795482012000", "'1795482012000' looks like ms since 1970; where all are, say `time_unit: ms`."),
    ],
)
def test_a_time_in_another_form_shows_itself_and_the_way_out(tmp_path: Path, text: str, way_out: str) -> None:
    path = written(tmp_path, f'user,sku,at,liked,dev\nu,A,"{text}",1,p\n')
    _, accounting = log_of(path)
    assert accounting.dropped == {"at: not a time in iso": (1, [f"{path} line 2: {text!r}"])}
    assert accounting.ways_out["at: not a time in iso"].startswith(way_out)


@pytest.mark.parametrize(
    ("declared", "text", "unit"),
    [
        ("s", "1795482000000", "ms"),
        ("ms", "1795482000", "s"),
        ("us", "1795482000000000000", "ns"),
        ("s", "2026-11-24T01:00:00Z", "iso"),
    ],
)
@pytest.mark.parametrize("day", [DAY, None])
def test_the_unit_of_times_is_guessed(tmp_path: Path, declared: str, text: str, unit: str, day: date | None) -> None:
    """Regression: of one log of many days it was `empty: 0 rows`."""
    path = written(tmp_path, f"user,sku,at,liked,dev\nu,A,{text},1,p\n")
    _, accounting = log_of(path, declared, day)
    (way_out,) = accounting.ways_out.values()
    assert f"`time_unit: {unit}`" in way_out
    with pytest.raises(
        UserError, match=rf"(?s)1 of 1 rows of the interactions are at fault.*line 2: '{text}'.*time_unit: {unit}"
    ):
        accounting.check("interactions", 0.01, [])
    rows, accounting = log_of(path, unit, day)
    assert not accounting.dropped and rows.num_rows == 1


MIXED = """user,sku,at,liked,dev
web0,A,1795482000000,1,p
app0,A,1795482000,1,p
ns0,A,1795482000000000000,1,p
ahead,A,1827104400000,1,p
zero,A,0,1,p
neg,A,-1,1,p
none,A,,1,p
past,A,1795136400000,1,p
w,B,1795563000000,1,p
"""


def test_times_of_no_day_are_faults_and_those_of_other_days_are_counted(tmp_path: Path) -> None:
    """Regression: rows of a log of many days whose times were in another unit were left out without a word."""
    path = written(tmp_path, MIXED)
    rows, accounting = log_of(path, "ms", None)
    assert texts(rows, "query_id") == ["web0", "w"]
    # app0 is in 1970, ns0 in 56,897,000 or so, ahead a year after the log was read, zero and neg at and before 1970.
    assert dropped(accounting) == {"at: not a time in ms": 1, "at: of no day that can be": 4, "at: missing": 1}
    assert accounting.ways_out["at: of no day that can be"].startswith("'1795482000' looks like s since 1970")
    assert (accounting.rows, accounting.dayless, accounting.other_days) == (8, 6, 1)
    assert accounting.in_words()[-1] == "  1 of other days, from 2026-11-20 to 2026-11-20"


def test_rows_without_a_day_are_a_share_of_the_whole_log(tmp_path: Path) -> None:
    """They are met again on every day: counted against one day's rows they would stop each, however few they are in the log."""
    others = "".join(f"u{n},A,{1795136400000 + n},1,p\n" for n in range(600))
    path = written(tmp_path, MIXED + others)
    accounting = replace(log_of(path, "ms", None)[1], splits={"train": 2})
    accounting.check("interactions", 0.01, [])  # 6 of the 609
    with pytest.raises(UserError, match="6 of 609 rows of the interactions are at fault"):
        accounting.check("interactions", 0.009, [])


# Files


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


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
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
def test_what_delimits_nothing_is_refused(delimiter: str) -> None:
    with pytest.raises(ValidationError):
        SourceSettings(path="x", format="csv", delimiter=delimiter)
