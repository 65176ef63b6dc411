"""Tracks lines of CSV on its way to Arrow: the line at which each record begins, and ambiguous quotes."""

import re
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.example_gen.settings import SourceSettings

NEWLINE, QUOTE, RETURN = b"\n"[0], b'"'[0], b"\r"[0]
WAYS_OUT = (
    'Fix it, or say how quotes are written: `quoting: none` where values are never quoted, `quoting: backslash` where \\" '
    "stands for a quote, `quoted_newlines: true` where values span lines"
)


class FileFaultError(Exception):
    """A file that cannot be read, or not completely. The text says why, without the file's name."""


@dataclass
class CsvLines:
    """A stream of CSV for Arrow; blocks end at line ends.

    Attributes:
        file: the stream.
        source: how it is written.
    """

    file: pa.NativeFile
    source: SourceSettings
    closed: bool = False
    _rest: bytes = b""
    _lines: int = 0
    _records: int = 0
    _is_open: bool = False  # whether a quoted value spans the last line's end
    _breaks: list[int] = field(default_factory=lambda: [0])
    _shifts: list[int] = field(default_factory=lambda: [1])

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`; empty at the end.

        Raises:
            FileFaultError: quotes are malformed, or a line is longer than `size`.
        """
        while True:
            block: bytes = self.file.read(size - len(self._rest))
            data = self._rest + block
            # A carriage return at the very end may be half of a line end.
            cut = max(data.rfind(b"\n"), data.rfind(b"\r", 0, len(data) - 1)) + 1 if block else len(data)
            if not cut and len(data) >= size:
                raise FileFaultError(f"has a line of more than {size >> 20} MiB, line {self._lines + 1}")
            self._rest = data[cut:]
            if cut or not block:
                whole = data[:cut]
                if whole:
                    self._look_at(whole)
                return self._with_null(whole)

    def close(self) -> None:
        """Override of Arrow's method."""
        self.closed = True

    def line_of(self, records: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the lines, from 1, at which records begin; record 0 is the header. Empty lines are no records."""
        lines: NDArray[np.int64] = (
            records + np.array(self._shifts)[np.searchsorted(np.array(self._breaks), records, side="right") - 1]
        )
        return lines

    def _with_null(self, whole: bytes) -> bytes:
        r"""Escape a value of \N, MySQL's null, if backslashes escape; Arrow would read it as N."""
        if self.source.quoting != "backslash" or b"\\N" not in whole:
            return whole
        edge = rb"[^" + re.escape(self.source.delimiter.encode()) + rb"\r\n]"
        return re.sub(rb"(?<!" + edge + rb")\\N(?!" + edge + rb")", rb"\\\\N", whole)

    def _look_at(self, whole: bytes) -> None:
        text = np.frombuffer(whole, np.uint8)
        ends = _line_ends(text, whole)
        starts = np.concatenate([[0], ends + 1])
        if starts[-1] == len(text):
            starts = starts[:-1]
        else:
            ends = np.append(ends, len(text))
        quotes = self._quotes(text, whole)
        before = np.concatenate([[0], np.searchsorted(quotes, ends)])
        if not self.source.quoted_newlines and len(odd := np.flatnonzero(np.diff(before) % 2)):
            raise FileFaultError(
                f"has a quote in line {self._lines + odd[0] + 1} that this line does not close. {WAYS_OUT}"
            )
        is_within = (before + self._is_open) % 2 == 1
        self._check_closing(text, whole, quotes, starts, ends, is_within)
        is_blank = (ends == starts) | ((ends == starts + 1) & (text[starts] == RETURN))
        records = np.flatnonzero(~is_within[:-1] & ~is_blank)
        shifts = self._lines + 1 + records - (self._records + np.arange(len(records)))
        changes = np.flatnonzero(np.diff(shifts, prepend=self._shifts[-1]))
        self._breaks += (self._records + changes).tolist()
        self._shifts += shifts[changes].tolist()
        self._records += len(records)
        self._lines += len(starts)
        self._is_open = bool(is_within[-1])

    def _quotes(self, text: NDArray[np.uint8], whole: bytes) -> NDArray[np.int64]:
        """Return the positions of the quotes that open, close or are doubled."""
        if self.source.quoting == "none" or b'"' not in whole:
            return np.zeros(0, np.int64)
        quotes = np.flatnonzero(text == QUOTE)
        if self.source.quoting == "backslash":
            escaped = [match.end() for match in re.finditer(rb'\\+(?=")', whole) if len(match[0]) % 2]
            return np.setdiff1d(quotes, np.array(escaped, np.int64), assume_unique=True)
        return quotes

    def _check_closing(
        self,
        text: NDArray[np.uint8],
        whole: bytes,
        quotes: NDArray[np.int64],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        is_within: NDArray[np.bool_],
    ) -> None:
        """Report text after a closing quote: Arrow would append it to the value, without the quotes."""
        if not len(quotes) or self.source.quoting != "double":
            return
        is_edge = np.zeros(256, bool)
        is_edge[[NEWLINE, RETURN, QUOTE, ord(self.source.delimiter)]] = True
        padded = np.concatenate([[NEWLINE], text, [NEWLINE]])
        alone = quotes[~is_edge[padded[quotes]] & ~is_edge[padded[quotes + 2]]]
        for line in np.unique(np.searchsorted(starts, alone, side="right") - 1):
            if is_within[line] or is_within[line + 1]:
                continue  # of a value that spans lines
            content = whole[starts[line] : ends[line]].rstrip(b"\r")
            if not _well_quoted(self.source.delimiter).fullmatch(content):
                raise FileFaultError(f"has text behind a closing quote in line {self._lines + line + 1}. {WAYS_OUT}")


def _line_ends(text: NDArray[np.uint8], whole: bytes) -> NDArray[np.int64]:
    """Return the positions of line feeds, and of carriage returns without a following line feed."""
    ends = np.flatnonzero(text == NEWLINE)
    if b"\r" not in whole:
        return ends
    returns = np.flatnonzero(text == RETURN)
    alone = returns[np.append(text, NEWLINE - 1)[returns + 1] != NEWLINE]
    return np.sort(np.concatenate([ends, alone])) if len(alone) else ends


def _well_quoted(delimiter: str) -> re.Pattern[bytes]:
    """Match a line whose quoted values end at a delimiter (RFC 4180); a quote within an unquoted value is a character."""
    between = re.escape(delimiter.encode())
    value = rb'(?:"(?:[^"]|"")*+"|[^"' + between + rb"][^" + between + rb"]*+|)"
    return re.compile(value + rb"(?:" + between + value + rb")*+")
