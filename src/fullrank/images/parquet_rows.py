"""Images in a column of parquet files: in memory, or by row groups read in place."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fullrank.errors import DataError, printable
from fullrank.images.column_labels import column_labels
from fullrank.images.fingerprints import digest, file_digests
from fullrank.images.index_files import Index, open_index
from fullrank.images.sources import Indices
from fullrank.untrusted.parsing import refusing
from fullrank.untrusted.paths import require_regular

READ_AT_ONCE_BYTES = 1_000_000_000  # of all files: larger sets are read in place, not into memory
WINDOW_BYTES = 256_000_000  # of row groups that a process keeps: its images are the window of an epoch
LARGEST_GROUP = 512_000_000  # bytes of a row group that is read as a whole
MOST_OPEN = 16  # files that a process keeps open


class ParquetRows:
    """Encoded images in one column of some parquet files, as items of a `LazySource`.

    The column holds bytes, or structs of `bytes` and `path` as `datasets.Image` stores them. It is read into
    memory, or where it is large and its row groups are too large to be read in place, copied into the cache
    of `datasets` and mapped. DataError says that the files cannot be read.
    """

    def __init__(self, files: list[Path], column: str) -> None:
        self.files, self.column = files, column
        if sum(file.stat().st_size for file in files) <= READ_AT_ONCE_BYTES:
            self._cells: Any = read_column(files, column)
        else:
            try:
                from datasets import Dataset
            except ImportError as error:
                raise DataError(
                    f"{files[0].parent} holds more parquet than is read into memory, which needs datasets: "
                    f"pip install 'fullrank[hub]'"
                ) from error
            paths = [str(file) for file in files]
            self._cells = Dataset.from_parquet(paths, columns=[column]).data.column(column)

    def __reduce__(self) -> tuple[Callable[..., ParquetRows], tuple[list[Path], str]]:
        """Pickle the file names only: a worker process reads or maps the files itself."""
        return ParquetRows, (self.files, self.column)

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, i: int) -> bytes | Path:
        """Encoded image in row `i`, or the path that stands in its place."""
        return image_in(self._cells[i].as_py(), self.files[0].parent)

    def fingerprint(self) -> dict[str, str]:
        """See `Fingerprinted`: names and sizes of the files."""
        return _fingerprint([str(file) for file in self.files])

    def where(self, i: int) -> str:
        """Path of image `i`, or file and row, for messages."""
        where = self.files[0] if len(self.files) == 1 else self.files[0].parent
        return printable(f"{where} {self.column!r} row {i}")


def beside(folder: Path, name: Any) -> Path:
    """A file that a row names, which may lie in the folder of its table alone."""
    path = Path(os.path.realpath(folder / str(name)))
    if not name or not path.is_relative_to(os.path.realpath(folder)):
        raise OSError("the row names a file that does not lie beside its table")
    return path


def image_in(cell: Any, folder: Path | None) -> bytes | Path:
    """The encoded image in a cell, or a file beside its table that it names.

    Raises:
        OSError: there is none.
    """
    if isinstance(cell, dict):
        inside, name = cell.get("bytes"), cell.get("path")
        cell = inside or (beside(folder, name) if folder is not None else None)
    if not isinstance(cell, bytes | Path):
        raise OSError("the row holds no image")
    return cell


def where_of(files: list[Path]) -> str:
    """The file, or the folder of several, for messages."""
    return printable(str(files[0].parent if len(files) > 1 else files[0]))


def read_column(files: list[Path], column: str) -> Any:
    """A column of several files as one chunked array of pyarrow."""
    import pyarrow
    import pyarrow.parquet

    with refusing(f"{where_of(files)}: column {column!r} cannot be read"):
        tables = [pyarrow.parquet.read_table(require_regular(file), columns=[column]) for file in files]
        return pyarrow.chunked_array([chunk for table in tables for chunk in table[column].chunks])


class RowGroups:
    """Encoded images in one column of parquet files that are read in place.

    A row group is read as a whole and kept while images near it are wanted: as many as a window needs, of
    256 MB. So an epoch shuffled within that window (`shuffled_stream`) reads each row group once a process.

    Args:
        files: paths or addresses that fsspec opens.
        index: see `open_row_groups`.
    """

    def __init__(self, files: list[str], column: str, index: Index) -> None:
        self.files, self.column, self.index = files, column, index
        self.starts: Indices = index.arrays["starts"]
        self._file_of, self._group_of = index.arrays["file_of"], index.arrays["group_of"]
        n, groups = int(self.starts[-1]), len(self._file_of)
        bytes_each = max(1.0, index.facts["bytes"] / max(n, 1))
        self.window = min(max(256, int(WINDOW_BYTES / bytes_each)), max(n, 1))
        self._keep = 2 + -(-self.window * groups // max(n, 1))
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        """Open all anew: what another process has opened before a fork is not shared."""
        self._owner = os.getpid()
        self._groups: OrderedDict[int, Any] = OrderedDict()
        self._open: OrderedDict[int, Any] = OrderedDict()

    def __reduce__(self) -> tuple[Callable[..., RowGroups], tuple[list[str], str, Index]]:
        """Pickle the names: another process opens the files itself."""
        return RowGroups, (self.files, self.column, self.index)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, i: int) -> bytes | Path:
        """Encoded image in row `i` of all, or the path that stands in its place."""
        group = int(np.searchsorted(self.starts, i, side="right")) - 1
        with self._lock:
            cell = self._cells(group)[i - int(self.starts[group])].as_py()
        file = self.files[int(self._file_of[group])]
        return image_in(cell, None if "://" in file else Path(file).parent)

    def fingerprint(self) -> dict[str, str]:
        """See `Fingerprinted`: names and sizes of files, places of row groups."""
        found = _fingerprint(self.files)
        return {**found, "row groups": digest(np.asarray(self.starts, np.int64).tobytes())}

    def where(self, i: int) -> str:
        """File and row of image `i`, for messages."""
        group = int(np.searchsorted(self.starts, i, side="right")) - 1
        first = int(np.searchsorted(self._file_of, self._file_of[group]))  # group of the same file
        row = i - int(self.starts[first])
        return printable(f"{self.files[int(self._file_of[group])]} {self.column!r} row {row}")

    def _cells(self, group: int) -> Any:
        if self._owner != os.getpid():
            self._forget()
        if group not in self._groups:
            while len(self._groups) >= self._keep:
                self._groups.popitem(last=False)
            file = self._file(int(self._file_of[group]))
            table = file.read_row_group(int(self._group_of[group]), columns=[self.column])
            self._groups[group] = table.column(self.column)
        self._groups.move_to_end(group)
        return self._groups[group]

    def _file(self, number: int) -> Any:
        if number not in self._open:
            while len(self._open) >= MOST_OPEN:
                self._open.popitem(last=False)
            self._open[number] = open_parquet_file(self.files[number])
        self._open.move_to_end(number)
        return self._open[number]


def open_parquet_file(file: str) -> Any:
    """Open a parquet file: mapped on this machine, else by ranges through fsspec.

    Raises:
        DataError: it cannot be opened, or is no parquet.
    """
    import pyarrow.parquet

    with refusing(f"{file} cannot be read as parquet"):
        if "://" not in file:
            return pyarrow.parquet.ParquetFile(require_regular(Path(file)), memory_map=True)
        from fsspec.core import url_to_fs  # of pyarrow's and datasets' own needs

        system, path = url_to_fs(file)
        return pyarrow.parquet.ParquetFile(system.open(path, "rb", cache_type="none"), pre_buffer=True)


def open_row_groups(files: Sequence[str], column: str, label_column: str | None) -> RowGroups:
    """Open parquet files in place, by an index of their row groups that is built once.

    It holds as long as names, sizes and times of modification do; addresses of the Hub name a revision. It
    has the label column too, as `index.arrays["labels"]`, or under `index.facts["words"]` where these are no
    numbers.

    Raises:
        DataError: a file cannot be read.
    """
    stamps = [_stamp(file) for file in files]

    def build() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        file_of, group_of, rows, size, largest = list[int](), list[int](), list[int](), 0, 0
        labels: list[Any] = []
        for number, name in enumerate(files):
            file = open_parquet_file(name)
            with refusing(f"{name}: column {label_column!r} cannot be read"):
                has_labels = label_column is not None and label_column in file.schema_arrow.names
                read = file.read(columns=[label_column])[label_column].to_pylist() if has_labels else None
            labels += read if read is not None else [None] * file.metadata.num_rows
            for group in range(file.metadata.num_row_groups):
                facts = file.metadata.row_group(group)
                taken = _bytes_of(facts, column)
                size, largest = size + taken, max(largest, taken)
                file_of.append(number)
                group_of.append(group)
                rows.append(facts.num_rows)
        arrays: dict[str, np.ndarray] = {
            "starts": np.cumsum([0, *rows], dtype=np.int64),
            "file_of": np.array(file_of, np.int32),
            "group_of": np.array(group_of, np.int32),
        }
        facts = {"stamps": stamps, "bytes": size, "largest": largest}
        where = f"{printable(files[0])}{', ...' if len(files) > 1 else ''}: column {label_column!r}"
        return arrays | _label_arrays(labels, where, facts), facts

    place = "\0".join([*files, column, label_column or ""])
    index = open_index("parquet", place, lambda index: index.facts.get("stamps") == stamps, build)
    return RowGroups(list(files), column, index)


def _label_arrays(labels: list[Any], where: str, facts: dict[str, Any]) -> dict[str, np.ndarray]:
    numbers, words = column_labels(labels, where)
    if words is not None:
        facts["words"] = words
    return {} if numbers is None else {"labels": numbers}


def _bytes_of(row_group: Any, column: str) -> int:
    columns = (row_group.column(i) for i in range(row_group.num_columns))
    return sum(
        each.total_uncompressed_size for each in columns if each.path_in_schema.partition(".")[0] == column
    )


def _fingerprint(files: list[str]) -> dict[str, str]:
    sizes = [-1 if "://" in file else Path(file).stat().st_size for file in files]
    return file_digests(files, (digest(str(size).encode()) for size in sizes))


def _stamp(file: str) -> list[Any]:
    if "://" in file:
        return [file]
    stat = require_regular(Path(file)).stat()
    return [file, stat.st_size, stat.st_mtime_ns]
