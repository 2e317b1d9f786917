"""Files of columns (parquet, Arrow, CSV), read as record batches of pyarrow."""

from __future__ import annotations

import csv
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from fullrank.features.keys import is_label_name
from fullrank.features.labels import numbers_or_texts
from fullrank.untrusted.paths import require_regular

PARQUET_SUFFIXES = (".parquet", ".pq")
ARROW_SUFFIXES = (".arrow", ".feather", ".ipc")
CSV_SUFFIXES = (".csv", ".tsv")
LONGEST_LINE = 1 << 20  # characters; a block of pyarrow's parser, which a line must fit in
_ROW_NUMBERS = ("", "index", "idx", "id", "row")  # names of columns that count rows, in CSV


class ColumnFile(ABC):
    """Columns of one file; whatever pyarrow raises is for the caller to name.

    Attributes:
        about: what the file should be, for messages.
        whole_numbers: whether columns of integers are coordinates where there are floats beside them.
        dimensions: columns that are called as labels are, and hold coordinates.
    """

    about: ClassVar[str]
    whole_numbers: ClassVar[bool] = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dimensions: frozenset[str] = frozenset()

    @property
    @abstractmethod
    def schema(self) -> Any:
        """Names and types."""

    @property
    @abstractmethod
    def groups(self) -> list[int]:
        """Rows of each part that is read alone."""

    @abstractmethod
    def batches(
        self, columns: Sequence[str], rows: int, groups: Sequence[int] | None = None
    ) -> Iterator[Any]:
        """Record batches of at most so many rows of some columns; of all groups, or some."""

    def column(self, name: str) -> list[Any]:
        """A column whole, as Python values."""
        return [value for batch in self.batches([name], 1 << 16) for value in batch.column(0).to_pylist()]

    def is_label(self, name: str) -> bool:
        """Whether a column is called as labels are, and is no dimension."""
        return name not in self.dimensions and is_label_name(name)


class ParquetColumns(ColumnFile):
    """Columns of a parquet file, by row groups."""

    about = "parquet"

    @property
    def schema(self) -> Any:
        """See `ColumnFile.schema`."""
        import pyarrow.parquet as parquet

        return parquet.read_schema(self.path)

    @cached_property
    def groups(self) -> list[int]:
        """See `ColumnFile.groups`."""
        import pyarrow.parquet as parquet

        with parquet.ParquetFile(self.path) as file:
            return [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]

    def batches(
        self, columns: Sequence[str], rows: int, groups: Sequence[int] | None = None
    ) -> Iterator[Any]:
        """See `ColumnFile.batches`."""
        import pyarrow.parquet as parquet

        # without memory_map and with pre_buffer a row group is held twice
        with parquet.ParquetFile(self.path, memory_map=True, pre_buffer=False) as file:
            yield from file.iter_batches(rows, row_groups=groups, columns=list(columns), use_threads=False)


class ArrowColumns(ColumnFile):
    """Columns of an Arrow (Feather) file or stream, mapped, by record batches."""

    about = "Arrow"

    @property
    def schema(self) -> Any:
        """See `ColumnFile.schema`."""
        return self._opened()[0]

    @cached_property
    def groups(self) -> list[int]:
        """See `ColumnFile.groups`."""
        return [len(batch) for batch in self._opened()[1]]

    def _opened(self) -> tuple[Any, Iterator[Any]]:
        """Schema and batches, with no buffer trusted before it is checked."""
        import pyarrow as pa

        source = pa.memory_map(str(self.path))
        try:
            file = pa.ipc.open_file(source)
        except pa.ArrowInvalid:  # a stream, as `datasets` writes it
            source.seek(0)
            stream = pa.ipc.open_stream(source)
            return stream.schema, iter(stream)
        return file.schema, (file.get_batch(i) for i in range(file.num_record_batches))

    def batches(
        self, columns: Sequence[str], rows: int, groups: Sequence[int] | None = None
    ) -> Iterator[Any]:
        """See `ColumnFile.batches`."""
        for group, batch in enumerate(self._opened()[1]):
            if groups is None or group in groups:
                chosen = batch.select(list(columns))
                chosen.validate(full=True)  # offsets that lie would be followed out of the buffer
                yield from (chosen.slice(start, rows) for start in range(0, len(chosen), rows))


class CsvColumns(ColumnFile):
    """Columns of a text file, parsed anew on every pass.

    All numbers are read as float64: a column that begins with whole numbers may go on with others. A first
    line of numbers alone, or with coordinates among words, is a row; else it names the columns.
    """

    about = "CSV"
    whole_numbers = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with require_regular(path).open(newline="", encoding="utf-8", errors="replace") as file:
            first = file.readline(LONGEST_LINE).rstrip("\r\n")
        if len(first) == LONGEST_LINE:
            raise ValueError(f"its first line has more than {LONGEST_LINE:,} characters")
        counts = {delimiter: first.count(delimiter) for delimiter in ("\t", ";", ",")}
        self.delimiter = "\t" if path.suffix.lower() == ".tsv" else max(counts, key=lambda d: counts[d])
        csv.field_size_limit(LONGEST_LINE)
        cells = next(csv.reader([first], delimiter=self.delimiter), [])
        headed = not (all(map(is_number, cells)) or any(map(_is_coordinate, cells)))
        self.names = None if headed else [f"f{i}" for i in range(len(cells))]

    def _opened(self, columns: Sequence[str] | None = None) -> Any:
        import pyarrow as pa
        import pyarrow.csv as arrow_csv

        kinds = {name: pa.string() if self.is_label(name) else pa.float64() for name in columns or ()}
        return arrow_csv.open_csv(
            self.path,
            arrow_csv.ReadOptions(column_names=self.names),
            arrow_csv.ParseOptions(delimiter=self.delimiter),
            arrow_csv.ConvertOptions(
                column_types=kinds,
                include_columns=list(columns or ()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )

    @cached_property
    def schema(self) -> Any:
        """See `ColumnFile.schema`; columns that count the rows are text to us."""
        import pyarrow as pa

        with self._opened() as stream:
            found = stream.schema
        counting = {n for n in found.names if n.lower() in _ROW_NUMBERS or n.lower().startswith("unnamed")}
        kinds = [pa.string() if f.name in counting and pa.types.is_integer(f.type) else f.type for f in found]
        return pa.schema(list(zip(found.names, kinds, strict=True)))

    @cached_property
    def groups(self) -> list[int]:
        """See `ColumnFile.groups`: text is parsed to its end, which finds what is damaged."""
        import pyarrow as pa

        numbers = [
            f.name for f in self.schema if not pa.types.is_string(f.type) and not pa.types.is_null(f.type)
        ]
        with self._opened([name for name in numbers if not self.is_label(name)]) as stream:
            return [sum(len(batch) for batch in stream)]

    def batches(
        self, columns: Sequence[str], rows: int, groups: Sequence[int] | None = None
    ) -> Iterator[Any]:
        """See `ColumnFile.batches`."""
        with self._opened(columns) as stream:
            for batch in stream:
                yield from (batch.slice(start, rows) for start in range(0, len(batch), rows))

    def column(self, name: str) -> list[Any]:
        """See `ColumnFile.column`."""
        values = [value or "" for value in super().column(name)]
        labels: list[Any] = list(numbers_or_texts(values)) if self.is_label(name) else values
        return labels


def _is_coordinate(cell: str) -> bool:
    """Whether a cell is hardly a name: a negative number, or one of many decimals."""
    return re.fullmatch(r"(-\d*\.\d+|\d*\.\d{3,})(e[+-]?\d+)?", cell.strip(), re.IGNORECASE) is not None


def is_number(cell: str) -> bool:
    """Whether a cell of a text file is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def about(path: Path) -> str:
    """What a file of columns should be, by its ending."""
    suffix = path.suffix.lower()
    if suffix in PARQUET_SUFFIXES:
        return ParquetColumns.about
    return CsvColumns.about if suffix in CSV_SUFFIXES else ArrowColumns.about


def open_columns(path: Path) -> ColumnFile:
    """Open a file of columns, by its ending."""
    suffix = path.suffix.lower()
    if suffix in PARQUET_SUFFIXES:
        return ParquetColumns(path)
    return CsvColumns(path) if suffix in CSV_SUFFIXES else ArrowColumns(path)
