"""The journal of a sweep: one row per candidate, written once and never lost.

On a local disk it is an SQLite database in WAL mode, which several sweeps may use at once. File systems of a network do
not keep the locks and the shared memory that WAL needs; there it is a folder of text files, one per process, in which
every line carries a checksum. Both hold the same rows. A journal can come from anyone: every row that is read is
validated.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import socket
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Protocol

from msgspec import Struct

from cspprof.core.errors import CspprofError
from cspprof.core.files import read_limited
from cspprof.core.json_text import parse_json
from cspprof.core.temporary import process_folder
from cspprof.core.validation import Count, Name, Seconds, Text, validated
from cspprof.storage.cache import folder
from cspprof.sweeps.candidate import Row, Status

SCHEMA = 1
NETWORK_FILE_SYSTEMS = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "fuse.sshfs",
    "fuse.glusterfs", "fuse.ceph", "afs", "panfs", "virtiofs",
})  # fmt: skip
"""Types of file systems on which SQLite's WAL mode is not safe."""
DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""The errors that `sqlite3` raises for a damaged file. SQLite's message may quote bytes of the file; Python cannot
decode it if they are no UTF-8."""
BATCH = 500
"""Keys in one query."""


OTHER_FILE = "Name another file: --journal FILE"
MAX_DOCUMENT = 1 << 20
"""The bytes of a row, and of the description of the space."""


class JournalError(CspprofError):
    """The journal cannot be read or written."""


class Journal(Protocol):
    """Rows by key. A row with numbers stays as it is written first; one without numbers is replaced by a later one."""

    path: Path

    def missing(self, keys: Sequence[bytes], retried: Collection[Status] = ()) -> set[bytes]:
        """Those of the keys that have no row, or one with a status that is to be tried again."""

    def find(self, key: bytes) -> Row | None:
        """The row with this key; None if there is none."""

    def add(self, rows: Sequence[Row]) -> None:
        """Write the rows; the end of this process afterwards loses none. Raises JournalError."""

    def rows(self) -> Iterator[Row]:
        """All rows by position and SPEC, read one after another."""

    def space(self) -> str | None:
        """The description of the space whose rows it holds."""

    def set_space(self, description: str) -> None:
        """Set the description of the space."""

    def close(self) -> None:
        """Close the files."""


def open_journal(path: Path) -> Journal:
    """The journal at `path`, which is created if it does not exist. Raises JournalError."""
    if path.is_dir() or (not path.exists() and file_system(path) in NETWORK_FILE_SYSTEMS):
        return TextJournal(path)
    return SqliteJournal(path)


def default_path(description: str) -> Path:
    """The journal of a space for which the user names none: in the folder of the cache, named after the space."""
    name = hashlib.sha256(description.encode()).hexdigest()[:16]
    return folder().parent / "sweeps" / f"{name}.sweep"


def temporary_path() -> Path:
    """A journal that exists until this process ends."""
    return process_folder("sweep") / "rows.sweep"


def merge(path: Path, into: Journal) -> None:
    """Add the rows of the journal at `path`. Raises JournalError."""
    if not path.exists():
        raise JournalError(f"there is no journal {path}", "Name a file that cspprof sweep --journal wrote.")
    other = open_journal(path)
    try:
        if into.space() is None and (description := other.space()) is not None:
            into.set_space(description)
        rows = other.rows()
        while piece := list(islice(rows, 1000)):
            into.add(piece)
    finally:
        other.close()


def rows_by_status(path: Path) -> dict[str, int]:
    """The number of rows of each status in the journal at `path`, which stays as it is. Raises sqlite3.Error, or
    JournalError from a folder of text files."""
    if path.is_dir():
        return dict(Counter(row.status for row in TextJournal(path).rows()))
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
        return dict(database.execute("SELECT status, count(*) FROM rows GROUP BY status ORDER BY status").fetchall())


def file_system(path: Path) -> str:
    """The type of the file system that holds `path`, such as `ext4`; empty where the system does not tell."""
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    place = path.resolve()
    found = [(m[1].encode().decode("unicode_escape"), m[2]) for m in (line.split(" ") for line in mounts) if len(m) > 2]
    inside = [(len(folder), kind) for folder, kind in found if place.is_relative_to(folder)]
    return max(inside)[1] if inside else ""


class RowFields(Struct, array_like=True, forbid_unknown_fields=True):
    """The fields of a row as a journal holds them; see `Row`."""

    key: str
    position: Count
    spec: Text
    axes: dict[Name, Any]
    input: Text
    status: Literal["ok", "refused", "failed", "timeout", "memory", "crashed"]
    values: dict[Name, int | float]
    at_least: tuple[Name, ...]
    error: str
    seconds: Seconds
    versions: Text


def _row(fields: object) -> Row:
    """The row with these fields. Raises ValueError."""
    row = validated(fields, RowFields)
    values = {name: getattr(row, name) for name in RowFields.__struct_fields__}
    return Row(**values | {"key": bytes.fromhex(row.key)})


def _damaged(path: Path, error: Exception) -> JournalError:
    return JournalError(f"the journal {path} is damaged: {error}", OTHER_FILE)


# -- SQLite ----------------------------------------------------------------------------------------


COLUMNS = (
    "key", "position", "spec", "axes", "input", "status", "error", "metrics", "numbers", "at_least", "versions",
    "seconds",
)  # fmt: skip
INSERT = (
    f"INSERT INTO rows VALUES ({','.join('?' * len(COLUMNS))}) ON CONFLICT (key) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
    + " WHERE rows.status != 'ok'"
)


def _has_own_tables(database: sqlite3.Connection) -> bool:
    """Whether the database has the tables of a journal and nothing else: a view or a trigger could run for ever."""
    found = set(database.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"))
    return found == {("table", "facts"), ("table", "names"), ("table", "rows")}


def _json(text: str) -> Any:
    return parse_json(text.encode(), parse_constant=float)


def _marks(values: Collection[object]) -> str:
    return ",".join("?" * len(values))


class SqliteJournal:
    """A journal in one SQLite file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise JournalError(f"{path} is no journal of cspprof", OTHER_FILE)
            if version == SCHEMA and not _has_own_tables(self._database):
                raise JournalError(f"{path} is no journal of cspprof: it has other tables or views", OTHER_FILE)
            if version > SCHEMA:
                raise JournalError(
                    f"{path} was written by a later version of cspprof", "Update cspprof, or name another --journal."
                )
            if version == 0:
                self._create()
        except DATABASE_ERRORS as error:
            raise JournalError(f"cannot open the journal {path}: {error}", OTHER_FILE) from None
        except OSError as error:
            raise JournalError(f"cannot create {path}: {error.strerror}", OTHER_FILE) from None
        self._columns: dict[str, int] = {}

    def _create(self) -> None:
        self._database.executescript(f"""
            BEGIN IMMEDIATE;
            CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT);
            CREATE TABLE IF NOT EXISTS names (id INTEGER PRIMARY KEY, text TEXT UNIQUE);
            CREATE TABLE IF NOT EXISTS rows (
                key BLOB PRIMARY KEY, position INTEGER, spec TEXT, axes TEXT, input TEXT, status TEXT, error TEXT,
                metrics INTEGER, numbers TEXT, at_least TEXT, versions INTEGER, seconds REAL
            ) WITHOUT ROWID;
            PRAGMA user_version = {SCHEMA};
            COMMIT;
        """)

    def missing(self, keys: Sequence[bytes], retried: Collection[Status] = ()) -> set[bytes]:
        found: set[bytes] = set()
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            query = f"SELECT key FROM rows WHERE key IN ({_marks(batch)}) AND status NOT IN ({_marks(retried)})"
            found.update(key for (key,) in self._fetch(query, *batch, *retried))
        return set(keys) - found

    def _fetch(self, query: str, *parameters: object) -> Iterator[Any]:
        """The rows of a query, read one after another. Raises JournalError."""
        try:
            yield from self._database.execute(query, parameters)
        except DATABASE_ERRORS as error:
            raise _damaged(self.path, error) from None

    def add(self, rows: Sequence[Row]) -> None:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                self._database.executemany(INSERT, [self._fields(row) for row in rows])
                self._database.execute("COMMIT")
            except BaseException:
                self._columns.clear()
                with contextlib.suppress(*DATABASE_ERRORS):
                    self._database.execute("ROLLBACK")
                raise
        except DATABASE_ERRORS as error:
            raise JournalError(
                f"cannot write the journal {self.path}: {error}",
                "Make room on the disk, then run the same command again: it goes on with the rows that are written.",
            ) from None

    def _fields(self, row: Row) -> tuple[object, ...]:
        names = json.dumps(list(row.values))
        return (
            row.key, row.position, row.spec, json.dumps(row.axes), row.input, row.status, row.error, self._id(names),
            json.dumps(list(row.values.values())), json.dumps(row.at_least), self._id(row.versions), row.seconds,
        )  # fmt: skip

    def _id(self, text: str) -> int:
        """The number of a text that many rows share, such as the names of the metrics."""
        if text not in self._columns:
            self._database.execute("INSERT OR IGNORE INTO names (text) VALUES (?)", (text,))
            found = self._database.execute("SELECT id FROM names WHERE text = ?", (text,)).fetchone()
            self._columns[text] = found[0]
        return self._columns[text]

    def find(self, key: bytes) -> Row | None:
        return next(self._select("WHERE key = ?", key), None)

    def rows(self) -> Iterator[Row]:
        return self._select("ORDER BY position, spec, key")

    def _select(self, clause: str, *parameters: bytes) -> Iterator[Row]:
        try:
            texts = dict(self._fetch("SELECT id, text FROM names"))
            metrics = {number: _json(text) for number, text in texts.items() if str(text).startswith("[")}
            for fields in self._fetch(f"SELECT * FROM rows {clause}", *parameters):
                key, position, spec, axes, shapes, status, error, names, numbers, at_least, versions, seconds = fields
                values = dict(zip(metrics[names], _json(numbers), strict=True))
                yield _row(
                    [key.hex(), position, spec, _json(axes), shapes, status, values, _json(at_least), error, seconds,
                     texts[versions]]
                )  # fmt: skip
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _damaged(self.path, error) from None

    def space(self) -> str | None:
        found = next(self._fetch("SELECT value FROM facts WHERE name = 'space'"), None)
        return str(found[0]) if found else None

    def set_space(self, description: str) -> None:
        try:
            self._database.execute("INSERT OR REPLACE INTO facts VALUES ('space', ?)", (description,))
        except DATABASE_ERRORS as error:
            raise JournalError(f"cannot write the journal {self.path}: {error}", OTHER_FILE) from None

    def close(self) -> None:
        self._database.close()


# -- text files ------------------------------------------------------------------------------------

START = re.compile(r'\["((?:[0-9a-f]{2})+)", ([0-9]{1,19}), ')
"""The start of a document: the key and the position of the row."""
MOST_FILES = 100
"""Files that are open at once."""


class TextJournal:
    """A journal in a folder. Each process that writes has a file of its own, to which it only appends.

    A line is the checksum of a JSON document, and the document. A process that is killed leaves at most one incomplete
    line, at the end of its file. It is ignored, and no process appends to the file of another one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"cannot create {path}: {error.strerror}", OTHER_FILE) from None
        self._part = path / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"

    @cached_property
    def _statuses(self) -> dict[bytes, Status]:
        """The status of each row: of those that were there when it was first read, and of those added here."""
        return {row.key: row.status for row in self.rows()}

    def missing(self, keys: Sequence[bytes], retried: Collection[Status] = ()) -> set[bytes]:
        return {key for key in keys if self._statuses.get(key) in (None, *retried)}

    def find(self, key: bytes) -> Row | None:
        return next((row for row in self.rows() if row.key == key), None) if key in self._statuses else None

    def add(self, rows: Sequence[Row]) -> None:
        new = [row for row in rows if self._statuses.get(row.key) != "ok"]
        try:
            self._append([json.dumps([row.key.hex(), *row[1:]]) for row in new])
        except OSError as error:
            raise JournalError(
                f"cannot write the journal {self.path}: {error.strerror}",
                "Make room on the disk, then run the same command again: it goes on with the rows that are written.",
            ) from None
        self._statuses.update((row.key, row.status) for row in new)

    def _append(self, documents: Iterable[str]) -> None:
        with self._part.open("ab") as file:
            file.write(b"".join(f"{_checksum(d)} {d}\n".encode() for d in documents))
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> Iterator[Row]:
        places = sorted(self._places().values())
        with _Lines() as lines:
            for _, same in groupby(places, key=lambda place: place.position):
                yield from sorted(map(lines.row, same), key=lambda row: (row.spec, row.key))

    def _places(self) -> dict[bytes, _Place]:
        """Where the row of each key is. Of several, it is the first one with numbers, else the last one."""
        found: dict[bytes, _Place] = {}
        try:
            parts = sorted(self.path.glob("*.jsonl"), key=lambda part: (part.stat().st_mtime_ns, part.name))
            with _Lines() as lines:
                for part in parts:
                    for place, key in _places_in(part):
                        if key not in found or lines.row(found[key]).status != "ok":
                            found[key] = place
        except OSError as error:
            raise JournalError(f"cannot read the journal {self.path}: {error}", OTHER_FILE) from None
        return found

    def space(self) -> str | None:
        with contextlib.suppress(OSError):
            return read_limited(self.path / "space.json", MAX_DOCUMENT).decode(errors="replace")
        return None

    def set_space(self, description: str) -> None:
        (self.path / "space.json").write_text(description)

    def close(self) -> None:
        pass


def _checksum(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()[:16]


class _Place(NamedTuple):
    """Where a row is: its position in the space, and the line in a file."""

    position: int
    part: Path
    offset: int


def _places_in(part: Path) -> Iterator[tuple[_Place, bytes]]:
    """The places and keys of the rows in a file, up to the first line that is incomplete or damaged."""
    offset = 0
    with part.open("rb") as file:
        while line := file.readline(MAX_DOCUMENT):
            checksum, _, document = line.decode(errors="replace").rstrip("\n").partition(" ")
            start = START.match(document)
            if not line.endswith(b"\n") or checksum != _checksum(document) or start is None:
                break
            yield _Place(int(start[2]), part, offset), bytes.fromhex(start[1])
            offset += len(line)


class _Lines:
    """Reads rows at their places. Leaving the context closes the files."""

    def __init__(self) -> None:
        self._files: dict[Path, IO[bytes]] = {}

    def row(self, place: _Place) -> Row:
        file = self._files.get(place.part)
        if file is None:
            if len(self._files) == MOST_FILES:
                self._close()
            file = self._files[place.part] = place.part.open("rb")
        file.seek(place.offset)
        try:
            return _row(parse_json(file.readline(MAX_DOCUMENT).partition(b" ")[2], parse_constant=float))
        except ValueError as error:
            raise JournalError(f"{place.part}: byte {place.offset}: {error}", OTHER_FILE) from None

    def _close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()
