"""sqlite3 connections.

What is in memory is saved whole, what is in a file stays there and is connected to again.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcr.objects.absent import absent
from nbcr.objects.kinds.base import CannotSave, Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey

_SETTINGS = ("isolation_level", "row_factory", "text_factory")


class Connections(Kind):
    """sqlite3.Connection."""

    types = ("sqlite3.Connection",)

    def parts(self, obj: sqlite3.Connection, survey: Survey) -> Iterable[Any]:
        return [getattr(obj, name) for name in _SETTINGS]

    def reduce(self, obj: sqlite3.Connection, pickler: UnitPickler) -> Reduction:
        try:
            databases = obj.execute("PRAGMA database_list").fetchall()
        except sqlite3.ProgrammingError as error:  # closed, or of another thread
            raise CannotSave(str(error)) from error
        functions = _functions_of(obj)
        if functions:
            pickler.remarks.add(f"functions that were given to its connection are not there: {', '.join(functions)}")
        if any(name not in ("main", "temp") for _, name, _ in databases):
            pickler.remarks.add("databases attached to its connection are not attached again")
        path = next(file for _, name, file in databases if name == "main")
        settings = {name: getattr(obj, name) for name in _SETTINGS}
        if path:
            if obj.in_transaction:
                pickler.remarks.add("the open transaction of its connection is not saved")
            return connect_to_file, (type(obj), path, settings)
        if obj.in_transaction:
            pickler.remarks.add("the open transaction of its connection comes back committed")
        return connect_to_memory, (type(obj), _contents(obj), settings)


def _functions_of(connection: sqlite3.Connection) -> list[str]:
    """The functions that SQL knows here and does not know in a new connection."""
    query = "SELECT DISTINCT name FROM pragma_function_list WHERE NOT builtin"
    try:
        with closing(sqlite3.connect(":memory:")) as new:
            usual = {row[0] for row in new.execute(query)}
        cursor = sqlite3.Cursor(connection)
        cursor.row_factory = None
        return sorted({row[0] for row in cursor.execute(query)} - usual)
    except sqlite3.Error:  # an older library, which does not tell
        return []


def _contents(connection: sqlite3.Connection) -> bytes:
    """The whole database, also what is not committed yet."""
    if hasattr(connection, "serialize"):
        return connection.serialize()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        with closing(sqlite3.connect(copy)) as target:
            connection.backup(target)
        return copy.read_bytes()


def connect_to_file(cls: type, path: str, settings: dict[str, Any]) -> Any:
    """A new connection to a database file."""
    if not Path(path).is_file():
        return absent(f"the database {path} is not there")
    return _with(cls(path), settings)


def connect_to_memory(cls: type, contents: bytes, settings: dict[str, Any]) -> Any:
    """A new connection to a database in memory with these contents."""
    made = cls(":memory:")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        copy.write_bytes(contents)
        with closing(sqlite3.connect(copy)) as source:
            source.backup(made)
    return _with(made, settings)


def _with(connection: Any, settings: dict[str, Any]) -> Any:
    for name, value in settings.items():
        setattr(connection, name, value)
    return connection


KINDS: tuple[Kind, ...] = (Connections(),)
