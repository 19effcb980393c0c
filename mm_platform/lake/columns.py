"""Columns between numpy, Python rows and Arrow, checked against the field registry.

Belongs here: building Arrow tables that match a `TableSchema` exactly or saying why not, and getting numpy columns back. Does not belong
here: files.

Arrow arrays are made from buffers rather than by `pyarrow.array`, which imports pandas wherever pandas is installed; the live runner
writes its fills through here and must not carry it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from mm_platform.core.errors import DataError
from mm_platform.lake.fields import Field, TableSchema

Columns = Mapping[str, npt.ArrayLike]
_NUMPY: Final[dict[Any, npt.DTypeLike]] = {
    pa.int8(): np.int8,
    pa.int16(): np.int16,
    pa.int64(): np.int64,
    pa.float64(): np.float64,
    pa.date32(): np.int32,
}


def table_of(schema: TableSchema, data: Any) -> Any:
    """An Arrow table with exactly the registry's columns, types and nulls.

    Parameters
    ----------
    schema : TableSchema
    data : pyarrow.Table, pyarrow.RecordBatch or Mapping[str, array_like]
        Equal-length columns by name, in any order. Arrow types must be the registry's; numpy integers may be of any width that holds the
        values, and are copied. NaN in a nullable float column becomes null. A column of a mapping may be an Arrow array.

    Returns
    -------
    pyarrow.Table

    Raises
    ------
    DataError
        Columns missing or unknown, wrong type, null or non-finite where the registry allows none: table, column and row are named.
    """
    given = data.column_names if isinstance(data, pa.Table) else data.schema.names if isinstance(data, pa.RecordBatch) else list(data)
    missing, unknown = [n for n in schema.names if n not in given], [n for n in given if n not in schema.names]
    if missing or unknown:
        raise DataError(
            f"table {schema.name}: columns missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}; expected {', '.join(schema.names)}"
        )
    if isinstance(data, (pa.Table, pa.RecordBatch)):
        arrays = [_checked(schema, f, data.column(f.name)) for f in schema.fields]
    else:
        arrays = [_checked(schema, f, _from_values(schema, f, data[f.name])) for f in schema.fields]
        lengths = {f.name: len(a) for f, a in zip(schema.fields, arrays, strict=True)}
        if len(set(lengths.values())) > 1:
            raise DataError(f"table {schema.name}: columns differ in length: {lengths}")
    return pa.Table.from_arrays(arrays, schema=schema.arrow_schema)


def table_of_rows(schema: TableSchema, rows: Iterable[Mapping[str, object]]) -> Any:
    """An Arrow table from rows by column name; for tables of results, not for ticks.

    Raises
    ------
    DataError
        As `table_of`; a row that lacks a column or has an unknown one is named by its number.
    """
    names = set(schema.names)
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for i, row in enumerate(rows):
        if row.keys() != names:
            raise DataError(
                f"table {schema.name}: row {i}: missing {', '.join(sorted(names - row.keys())) or 'none'}; unknown {', '.join(sorted(row.keys() - names)) or 'none'}"
            )
        for name, values in columns.items():
            values.append(row[name])
    return table_of(schema, columns)


def numpy_column(table: Any, name: str) -> npt.NDArray[Any]:
    """One numeric or boolean column as a numpy array; nulls of a float column become NaN.

    Raises
    ------
    DataError
        The column has nulls that its numpy type cannot hold.
    """
    chunks = [_chunk_to_numpy(name, chunk) for chunk in table.column(name).chunks if len(chunk)]
    if not chunks:
        type_ = table.schema.field(name).type
        return np.empty(0, dtype=np.bool_ if pat.is_boolean(type_) else _NUMPY[type_])
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def constant_column(value: str | int, type_: Any, rows: int) -> Any:
    """A column that says the same in every row, stored once (dictionary-encoded)."""
    index = pa.Array.from_buffers(pa.int8(), rows, [None, pa.py_buffer(np.zeros(rows, dtype=np.int8))])
    word = (
        _strings([str(value)]) if pat.is_string(type_) else pa.Array.from_buffers(type_, 1, [None, pa.py_buffer(np.array([value], dtype=np.int32))])
    )
    return pa.DictionaryArray.from_arrays(index, word)


def repeated_text(word: str, rows: int) -> Any:
    """A text column that says the same in every row, made without a Python object per row."""
    raw = word.encode()
    offsets = np.arange(rows + 1, dtype=np.int32) * len(raw)
    return pa.Array.from_buffers(pa.string(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(raw * rows)])


def mask_column(mask: Sequence[bool]) -> Any:
    """A boolean column without nulls, for `pyarrow.Table.filter`."""
    return pa.Array.from_buffers(pa.bool_(), len(mask), [None, pa.py_buffer(np.packbits(np.array(mask, dtype=np.bool_), bitorder="little"))])


def _from_values(schema: TableSchema, field: Field, values: npt.ArrayLike) -> Any:
    if isinstance(values, pa.Array):
        return values
    what = f"table {schema.name}, column {field.name}"
    if pat.is_string(field.type):
        return _strings(_string_list(what, field, values))
    present: npt.NDArray[np.bool_] | None = None
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{what}: expected one dimension, got shape {array.shape}")
    if array.dtype == object or (array.size == 0 and not isinstance(values, np.ndarray)):
        present = np.array([v is not None for v in array], dtype=np.bool_)
        array = (
            np.array([0 if v is None else v for v in array])
            if array.size
            else np.empty(0, dtype=np.bool_ if pat.is_boolean(field.type) else _NUMPY[field.type])
        )
        if array.dtype == np.bool_ and not pat.is_boolean(field.type) and array.size and not present.any():
            array = array.astype(np.int64)
    if pat.is_boolean(field.type):
        if array.dtype != np.bool_ and not (present is not None and not present.any()):
            raise DataError(f"{what}: expected true or false, got {array.dtype}")
        bits = np.packbits(array.astype(np.bool_), bitorder="little")
        return pa.Array.from_buffers(field.type, len(array), [_bitmap(present), pa.py_buffer(bits)])
    if pat.is_integer(field.type):
        if array.dtype.kind not in "iu":
            raise DataError(f"{what}: expected whole numbers ({field.unit}), got {array.dtype}")
        bounds = np.iinfo(np.dtype(_NUMPY[field.type]))
        if array.size and (int(array.min()) < bounds.min or int(array.max()) > bounds.max):
            raise DataError(f"{what}: values from {array.min()} to {array.max()} do not fit {field.type}")
    elif array.dtype.kind not in "fiu":
        raise DataError(f"{what}: expected numbers ({field.unit}), got {array.dtype}")
    array = np.array(array, dtype=_NUMPY[field.type])  # a copy: callers refill their buffers, rows may wait for a full row group
    if pat.is_floating(field.type) and field.nullable:
        nan = np.isnan(array)
        if nan.any():
            present = ~nan if present is None else present & ~nan
    return pa.Array.from_buffers(field.type, len(array), [_bitmap(present), pa.py_buffer(array)])


def _string_list(what: str, field: Field, values: Any) -> Sequence[str | None]:
    words: list[str | None] = values.tolist() if isinstance(values, np.ndarray) else list(values)
    for i, word in enumerate(words):
        if not isinstance(word, str) and not (word is None and field.nullable):
            raise DataError(f"{what}: row {i} is {word!r}, expected text{' or null' if field.nullable else ''}")
    return words


def _strings(words: Sequence[str | None]) -> Any:
    raw = [b"" if w is None else w.encode() for w in words]
    offsets = np.zeros(len(raw) + 1, dtype=np.int32)
    np.cumsum([len(r) for r in raw], out=offsets[1:])
    present = np.array([w is not None for w in words], dtype=np.bool_)
    return pa.Array.from_buffers(pa.string(), len(raw), [_bitmap(present), pa.py_buffer(offsets), pa.py_buffer(b"".join(raw))])


def _bitmap(present: npt.NDArray[np.bool_] | None) -> Any:
    return None if present is None or present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))


def _checked(schema: TableSchema, field: Field, column: Any) -> Any:
    what = f"table {schema.name}, column {field.name}"
    if not column.type.equals(field.type):
        raise DataError(f"{what}: expected {field.type} ({field.unit}), got {column.type}")
    if column.null_count and not field.nullable:
        row = pc.index(pc.is_null(column), True).as_py()
        raise DataError(f"{what}: row {row} is null; the column may not be empty ({field.meaning})")
    if pat.is_floating(field.type):
        if field.nullable:
            nan = pc.is_nan(column)
            if pc.any(nan).as_py():
                column = pc.replace_with_mask(_whole(column), pc.fill_null(_whole(nan), False), pa.nulls(pc.sum(nan).as_py(), field.type))
        finite = pc.is_finite(column)
        if pc.all(finite).as_py() is False:
            row = pc.index(pc.invert(finite), True).as_py()
            raise DataError(f"{what}: row {row} is {column[row].as_py()}, expected a finite number ({field.unit})")
    return column


def _whole(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _chunk_to_numpy(name: str, chunk: Any) -> npt.NDArray[Any]:
    if pat.is_dictionary(chunk.type):
        chunk = chunk.dictionary_decode()
    validity, data = chunk.buffers()[0], chunk.buffers()[-1]
    span = slice(chunk.offset, chunk.offset + len(chunk))
    if pat.is_boolean(chunk.type):
        values = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")[span].astype(np.bool_)
    elif chunk.type in _NUMPY:
        values = np.frombuffer(data, dtype=_NUMPY[chunk.type])[span]
    else:
        raise DataError(f"column {name}: {chunk.type} has no numpy form; use to_pylist()")
    if chunk.null_count:
        if not pat.is_floating(chunk.type):
            raise DataError(f"column {name}: {chunk.null_count} nulls, which {chunk.type} cannot hold in numpy; filter them first")
        present = np.unpackbits(np.frombuffer(validity, dtype=np.uint8), bitorder="little")[span].astype(np.bool_)
        values = np.where(present, values, np.nan)
    return values
