"""sqlite3 connections and rows, SQLAlchemy's engines.

What is in memory is saved whole, what is in a file stays there and is connected to again.
"""

from __future__ import annotations

import copy
import copyreg
import sqlite3
import tempfile
import threading
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
_PRAGMAS = (
    "foreign_keys",
    "busy_timeout",
    "recursive_triggers",
    "ignore_check_constraints",
    "query_only",
    "synchronous",
)
"""What belongs to a connection, not to its database, and changes what statements do."""
_OPENED, _PRAGMA = "opened with", "pragmas"  # among the settings of a reduction


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
        if _has_own_tables(obj):
            pickler.remarks.add("temporary tables of its connection are not there")
        path = next(file for _, name, file in databases if name == "main")
        settings = {name: getattr(obj, name) for name in _SETTINGS}
        settings |= {_OPENED: _how_opened(obj), _PRAGMA: _pragmas(obj)}
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
        return sorted({row[0] for row in _plain_cursor(connection).execute(query)} - usual)
    except sqlite3.Error:  # an older library, which does not tell
        return []


def _has_own_tables(connection: sqlite3.Connection) -> bool:
    return bool(_plain_cursor(connection).execute("SELECT 1 FROM sqlite_temp_master LIMIT 1").fetchone())


def _plain_cursor(connection: sqlite3.Connection) -> sqlite3.Cursor:
    cursor = sqlite3.Cursor(connection)
    cursor.row_factory = None
    return cursor


def _pragmas(connection: sqlite3.Connection) -> dict[str, int]:
    return {name: _plain_cursor(connection).execute(f"PRAGMA {name}").fetchone()[0] for name in _PRAGMAS}


def _how_opened(connection: sqlite3.Connection) -> dict[str, Any]:
    """Arguments of `connect` that no attribute tells: found out by what the connection does."""
    refused = []

    def use() -> None:
        try:
            connection.cursor().close()
        except sqlite3.ProgrammingError:
            refused.append(True)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    return {"check_same_thread": bool(refused), "detect_types": _detected_types(connection)}


def _detected_types(connection: sqlite3.Connection) -> int:
    """Whether converters are looked for by the declared type of a column (here TEXT), and by its name.

    Where there is no table yet, nothing tells the former.
    """
    usual, me, found = sqlite3.converters.get("TEXT"), threading.get_ident(), []

    def convert(raw: bytes) -> Any:
        if threading.get_ident() == me:
            found.append(True)
        return raw.decode() if usual is None else usual(raw)

    queries = {
        sqlite3.PARSE_DECLTYPES: "SELECT name FROM sqlite_master LIMIT 1",
        sqlite3.PARSE_COLNAMES: """SELECT 'x' AS "x [text]" """,
    }
    detected = 0
    sqlite3.converters["TEXT"] = convert
    try:
        for flag, query in queries.items():
            found.clear()
            _plain_cursor(connection).execute(query).fetchone()
            detected |= flag if found else 0
    except sqlite3.Error:  # somebody has locked the database
        pass
    finally:
        if usual is None:
            del sqlite3.converters["TEXT"]
        else:
            sqlite3.converters["TEXT"] = usual
    return detected


def _contents(connection: sqlite3.Connection) -> bytes:
    """The whole database, also what is not committed yet."""
    if _plain_cursor(connection).execute("PRAGMA page_count").fetchone() == (0,):
        return b""  # which `serialize` refuses
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
    return _with(cls(path, **settings.pop(_OPENED, {})), settings)


def connect_to_memory(cls: type, contents: bytes, settings: dict[str, Any]) -> Any:
    """A new connection to a database in memory with these contents."""
    made = cls(":memory:", **settings.pop(_OPENED, {}))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        copy.write_bytes(contents)
        with closing(sqlite3.connect(copy)) as source:
            source.backup(made)
    return _with(made, settings)


def _with(connection: Any, settings: dict[str, Any]) -> Any:
    for name, value in settings.pop(_PRAGMA, {}).items():
        if _plain_cursor(connection).execute(f"PRAGMA {name}").fetchone()[0] != value:
            connection.execute(f"PRAGMA {name} = {int(value)}").close()
    for name, value in settings.items():
        setattr(connection, name, value)
    return connection


class Rows(Kind):
    """sqlite3.Row: what is in it, and the names of its columns."""

    types = ("sqlite3.Row",)

    def reduce(self, obj: sqlite3.Row, pickler: UnitPickler) -> Reduction:
        return make_row, (type(obj), tuple(obj.keys()), tuple(obj))


def make_row(cls: Any, columns: tuple[str, ...], values: tuple[Any, ...]) -> Any:
    """A row as a query with these columns gives it."""
    names = ", ".join('NULL AS "{}"'.format(name.replace('"', '""')) for name in columns)
    with closing(sqlite3.connect(":memory:")) as connection:
        return cls(connection.execute(f"SELECT {names}"), values)


class Engines(Kind):
    """SQLAlchemy's engines, without the queries they have compiled: those know classes that do not come back."""

    types = ("sqlalchemy.engine.base.Engine",)

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return _without_compiled(obj).values()

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        return copyreg.__newobj__, (type(obj),), _without_compiled(obj)  # type: ignore[attr-defined]


def _without_compiled(engine: Any) -> dict[str, Any]:
    state = dict(vars(engine))
    cache = state.get("_compiled_cache")
    if cache is not None:
        empty = state["_compiled_cache"] = copy.copy(cache)
        empty._data = {}
    return state


KINDS: tuple[Kind, ...] = (Connections(), Rows(), Engines())
