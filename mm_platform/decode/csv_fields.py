"""Comma-separated text to columns without a string per field.

Belongs here: finding fields, whole numbers, words and grid steps in bytes; the frame of a CSV decoder (header, comments, groups of lines that
make one message). Does not belong here: any vendor's columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from mm_platform.core.errors import DataError
from mm_platform.decode.decimal_text import STATUS_TEXT, Bytes, Int64s, Statuses, Step, parse_steps
from mm_platform.decode.result import BadLines, Decoded
from mm_platform.kernels.jit import kernel
from mm_platform.tape.messages import Messages

NOT_STATED: Final = -1
_WHOLE: Final = Step(1, 0)

# reasons of rows beside those of `decimal_text`
BAD_FLAG: Final = 10
OTHER_SYMBOL: Final = 11
MIXED_TIMES: Final = 12
_ROW_TEXT: Final = STATUS_TEXT | {
    BAD_FLAG: "side is neither of the two words or digits the layout has",
    OTHER_SYMBOL: "another symbol than the first row's; one file holds one instrument",
    MIXED_TIMES: "times differ from those of the other lines of the same message",
}


@kernel
def split_fields(text: Bytes, width: int, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], status: Statuses) -> None:
    """Field bounds per line (each ended by a line feed). Status 0 data, 1 another number of fields than `width`, 2 comment or empty line."""
    at = 0
    n = text.shape[0]
    for line in range(status.shape[0]):
        begin = at
        column = 0
        start = at
        while True:
            ended = at >= n or text[at] == 10
            if ended or text[at] == 44:
                if column < width:
                    end = at
                    if ended and end > start and text[end - 1] == 13:
                        end -= 1
                    starts[line, column] = start
                    ends[line, column] = end
                column += 1
                start = at + 1
            if ended:
                break
            at += 1
        status[line] = 0 if column == width else 1
        if at == begin or text[begin] == 35 or (at == begin + 1 and text[begin] == 13):
            status[line] = 2
        at += 1


@kernel
def column_steps(text: Bytes, starts: Int64s, ends: Int64s, step: Step, out: Int64s, status: Statuses) -> None:
    """Numbers of one column as whole steps of a grid; statuses of `decimal_text`."""
    for i in range(starts.shape[0]):
        code, value = parse_steps(text, starts[i], ends[i], step)
        out[i] = value
        status[i] = code


@kernel
def column_equals(text: Bytes, starts: Int64s, ends: Int64s, word: Bytes, out: npt.NDArray[np.bool_]) -> None:
    """Which fields of a column are exactly `word`."""
    length = word.shape[0]
    for i in range(starts.shape[0]):
        same = ends[i] - starts[i] == length
        k = 0
        while same and k < length:
            same = text[starts[i] + k] == word[k]
            k += 1
        out[i] = same


class Fields:
    """Lines of one chunk as fields.

    Parameters
    ----------
    chunk : bytes
        Whole lines.
    names : sequence of str
        The columns in order.
    first_line : int
        Number of the first line.
    header_line : int
        Lines up to and including this number are no data.
    """

    def __init__(self, chunk: bytes, names: Sequence[str], first_line: int, header_line: int) -> None:
        self._chunk = chunk
        self._bytes = np.frombuffer(chunk, dtype=np.uint8)
        self.lines = chunk.count(b"\n") + (0 if chunk.endswith(b"\n") or not chunk else 1)
        self._index = {name: i for i, name in enumerate(names)}
        starts = np.zeros((self.lines, len(names)), dtype=np.int64)
        ends = np.zeros((self.lines, len(names)), dtype=np.int64)
        status = np.zeros(self.lines, dtype=np.int8)
        split_fields.compiled(self._bytes, len(names), starts, ends, status)
        numbers = np.arange(first_line, first_line + self.lines)
        status[numbers <= header_line] = 2
        self.torn = numbers[status == 1]
        self.width = len(names)
        data = status == 0
        self.line = numbers[data]
        # columns, each contiguous
        self._starts = np.ascontiguousarray(starts[data].T)
        self._ends = np.ascontiguousarray(ends[data].T)

    def __len__(self) -> int:
        return len(self.line)

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def cut(self, rows: int) -> int:
        """Drop the rows from `rows` on; returns the byte at which the first of them starts."""
        at = int(self._starts[0, rows])
        self._starts = np.ascontiguousarray(self._starts[:, :rows])
        self._ends = np.ascontiguousarray(self._ends[:, :rows])
        self.torn = self.torn[self.torn < self.line[rows]]
        self.line = self.line[:rows]
        return at

    def steps(self, name: str, step: Step) -> tuple[Int64s, Statuses]:
        """Whole steps of a grid, and statuses of `decimal_text`."""
        c = self._index[name]
        out, status = np.zeros(len(self), dtype=np.int64), np.zeros(len(self), dtype=np.int8)
        column_steps.compiled(self._bytes, self._starts[c], self._ends[c], step, out, status)
        return out, status

    def integers(self, name: str) -> tuple[Int64s, Statuses]:
        """Whole numbers, -1 where the field is empty or the column absent, and statuses of `decimal_text`."""
        if name not in self._index:
            return np.full(len(self), NOT_STATED, dtype=np.int64), np.zeros(len(self), dtype=np.int8)
        out, status = self.steps(name, _WHOLE)
        empty = self.empty(name)
        out[empty], status[empty] = NOT_STATED, 0
        return out, status

    def empty(self, name: str) -> npt.NDArray[np.bool_]:
        c = self._index[name]
        return self._starts[c] == self._ends[c]

    def equals(self, name: str, word: str) -> npt.NDArray[np.bool_]:
        """Which fields are exactly this word; none where the column is absent."""
        out = np.zeros(len(self), dtype=np.bool_)
        if name in self._index:
            c = self._index[name]
            column_equals.compiled(self._bytes, self._starts[c], self._ends[c], np.frombuffer(word.encode(), dtype=np.uint8), out)
        return out

    def text(self, name: str, row: int) -> str:
        c = self._index[name]
        return self._chunk[self._starts[c, row] : self._ends[c, row]].decode("utf-8", errors="replace")


class CsvDecoder(ABC):
    """Frame of a CSV decoder: lines that together make one message stay together across chunks.

    Parameters
    ----------
    names : sequence of str
        The header's columns.
    header_line : int
        Its line number.
    """

    def __init__(self, names: Sequence[str], header_line: int) -> None:
        self._names = tuple(names)
        self._header_line = header_line
        self._carry = b""
        self._carry_line = 1

    @abstractmethod
    def _starts_message(self, fields: Fields) -> npt.NDArray[np.bool_]:
        """Rows that begin a message; the first row always does."""

    @abstractmethod
    def _messages(self, fields: Fields, starts: npt.NDArray[np.bool_], bad: BadLines) -> Messages:
        """Messages of the rows, in their order; rows that cannot be used become bad lines."""

    def decode(self, chunk: bytes, first_line: int) -> Decoded:
        """See `Decoder.decode`."""
        if self._carry:
            chunk, first_line = self._carry + chunk, self._carry_line
        return self._decode(chunk, first_line, final=False)

    def finish(self) -> Decoded:
        """See `Decoder.finish`."""
        chunk, self._carry = self._carry, b""
        return self._decode(chunk, self._carry_line, final=True)

    def _decode(self, chunk: bytes, first_line: int, *, final: bool) -> Decoded:
        fields = Fields(chunk, self._names, first_line, self._header_line)
        lines = fields.lines
        bad = BadLines()
        self._carry = b""
        if not len(fields):
            bad.add_all(fields.torn, f"expected {fields.width} fields")
            return bad.done(Messages.empty(), lines)
        starts = self._starts_message(fields)
        starts[0] = True
        if not final:
            cut = int(np.flatnonzero(starts)[-1])
            next_line = int(fields.line[cut])
            at = fields.cut(cut)
            self._carry, self._carry_line = chunk[at:], next_line
            lines = next_line - first_line
            starts = starts[:cut]
        bad.add_all(fields.torn, f"expected {fields.width} fields")
        messages = self._messages(fields, starts, bad) if len(fields) else Messages.empty()
        return bad.done(messages, lines)


def per_message(starts: npt.NDArray[np.bool_], status: Statuses) -> Statuses:
    """Worst status among the rows of each message."""
    worst: Statuses = np.maximum.reduceat(status, np.flatnonzero(starts))
    return worst


def changes(*columns: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Rows in which any column differs from the row above; the first row counts as changed."""
    out = np.zeros(len(columns[0]), dtype=np.bool_)
    out[:1] = True
    for column in columns:
        out[1:] |= column[1:] != column[:-1]
    return out


def report_rows(status: Statuses, lines: Int64s, bad: BadLines) -> None:
    """Rows with a status become bad lines."""
    for code in np.unique(status[status != 0]):
        bad.add_all(lines[status == code], _ROW_TEXT[int(code)])


def need(names: Sequence[str], wanted: Sequence[str], layout: str) -> None:
    """Raise `DataError` when a layout's columns are missing."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(f"{layout}: columns missing: {', '.join(missing)}; the header has {', '.join(names)}")


def csv_head(head: bytes) -> tuple[int, list[str], list[str] | None, str]:
    """(header's line number, its columns, the first row's fields or None, the comment lines) of a CSV source."""
    names: list[str] = []
    comments: list[str] = []
    header_line = 0
    for number, raw in enumerate(head.decode("utf-8", errors="replace").splitlines(), start=1):
        line = raw.strip().lstrip("﻿")
        if line.startswith("#"):
            comments.append(line)
        elif not names:
            if not line:
                continue
            names, header_line = [name.strip() for name in line.split(",")], number
        elif line:
            return header_line, names, line.split(","), "\n".join(comments)
    return header_line, names, None, "\n".join(comments)
