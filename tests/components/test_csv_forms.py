"""Nothing is left out before it is counted: CSV as other programs write it."""

from pathlib import Path

import pytest

from schemas.errors import UserError
from tests.components.cleaned import catalogue_of, log_of, texts, written

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


def test_blanks_around_ids_are_reported_or_removed(tmp_path: Path) -> None:
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
