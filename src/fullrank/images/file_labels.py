"""Labels of image files in a table beside them, `labels.csv` or `metadata.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fullrank.errors import DataError, printable
from fullrank.images.column_labels import column_labels
from fullrank.images.sources import Indices
from fullrank.images.walking import Files
from fullrank.untrusted.parsing import refusing
from fullrank.untrusted.paths import require_regular

TABLES = ("labels.csv", "metadata.csv")
FILE_COLUMNS = ("file_name", "file", "filename", "image", "path")
LABEL_COLUMNS = ("label", "class", "target")


@dataclass(frozen=True)
class FileLabels:
    """Labels by names of files within the table's folder; empty for none."""

    table: Path
    labels: Mapping[str, str]

    def of(
        self, files: Files, classes: Sequence[str] | None = None
    ) -> tuple[Indices | None, list[str] | None]:
        """Labels of image files, -1 for none, and names of classes that are words.

        Args:
            files: below the table's folder.
            classes: words that have their numbers already.
        """
        within = [path.relative_to(self.table.parent).as_posix() for path in files]
        found: list[str | int | None] = [self.labels.get(name) or None for name in within]
        if classes is None and all(_is_number(value) for value in self.labels.values() if value):
            found = [None if value is None else int(value) for value in found]
        return column_labels(found, printable(str(self.table)), classes)


def read_file_labels(*folders: Path) -> FileLabels | None:
    """Read the table of the first folder that has one; None where no table has labels.

    Its first line names the columns: one of `FILE_COLUMNS`, one of `LABEL_COLUMNS`, and any others. A
    `labels.csv` of two columns may do without. A `metadata.csv` without a column of labels has none.

    Raises:
        DataError: two tables, other columns, a file that is named twice, or one that is not there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     Path(name, "1.png").touch()
        ...     _ = Path(name, "labels.csv").write_text("file,label\\n1.png,cat\\n")
        ...     read_file_labels(Path(name)).labels
        {'1.png': 'cat'}
    """
    for folder in folders:
        there = [folder / name for name in TABLES if (folder / name).is_file()]
        if len(there) > 1:
            raise DataError(
                f"{printable(str(folder))} has {' and '.join(TABLES)}: move the one away that is not meant"
            )
        if there:
            return _read(there[0])
    return None


def _read(table: Path) -> FileLabels | None:
    where = printable(str(table))
    with (
        refusing(f"{where} is no table of labels"),
        require_regular(table).open(encoding="utf-8-sig", newline="") as file,
    ):
        rows = [
            (reader.line_num, row) for reader in (csv.reader(file, strict=True),) for row in reader if row
        ]
    columns = _columns(table, rows[0][1] if rows else [])
    if columns is None:
        return None
    name_at, label_at, skipped = columns
    labels: dict[str, str] = {}
    for line, row in rows[skipped:]:
        if len(row) <= max(name_at, label_at):
            raise DataError(f"{where}, line {line}: a file and a label are expected, with a comma between")
        name = PurePosixPath(row[name_at].strip()).as_posix()
        if name in labels:
            raise DataError(f"{where}, line {line}: {printable(name)} is named twice: keep one of its lines")
        labels[name] = row[label_at].strip()
    missing = [name for name in labels if not (table.parent / name).is_file()]
    if missing:
        raise DataError(
            f"{where} names {len(missing):,} of {len(labels):,} files that are not there, as "
            f"{printable(missing[0])}: names are those within its folder, with their endings"
        )
    return FileLabels(table, labels)


def _columns(table: Path, first: Sequence[str]) -> tuple[int, int, int] | None:
    """Where names and labels stand in a row, and how many lines come before the first."""
    header = [cell.strip().lower() for cell in first]
    name = next((header.index(known) for known in FILE_COLUMNS if known in header), None)
    label = next((header.index(known) for known in LABEL_COLUMNS if known in header), None)
    if name is not None and label is not None:
        return name, label, 1
    if table.name == "metadata.csv":
        return None
    if len(first) == 2 and name is label is None and (table.parent / first[0].strip()).is_file():
        return 0, 1, 0
    raise DataError(
        f"{printable(str(table))} begins with {printable(','.join(first))[:80]!r}: its first line names a "
        f"column {FILE_COLUMNS[1]} (or {', '.join(FILE_COLUMNS[:1] + FILE_COLUMNS[2:])}) and a column "
        f"{LABEL_COLUMNS[0]} (or {', '.join(LABEL_COLUMNS[1:])}); or move the table away"
    )


def _is_number(value: str) -> bool:
    return value.removeprefix("-").isdecimal() and len(value) < 12
