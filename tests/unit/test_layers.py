"""Reads every import of the sources and enforces ARCHITECTURE.md's "who may import whom"."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Import:
    """One import: by which module, of which, and where."""

    importer: str
    imported: str
    place: str
    deferred: bool  # inside a function, or for type checkers only

    def within(self, package: str) -> bool:
        return self.imported == package or self.imported.startswith(package + ".")


def module_name(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(), str(path))
    importer, package = module_name(path), path.parent.relative_to(CHECKOUT).parts
    deferred = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test))
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        place = f"{path.relative_to(CHECKOUT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = list(package[: len(package) - node.level + 1]) if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield Import(importer, name, place, id(node) in deferred)


def all_imports(package: str) -> list[Import]:
    return [found for path in sorted((CHECKOUT / package).rglob("*.py")) for found in imports_of(path)]


ENGINE, USERS = all_imports("kernel_backend"), all_imports("nbcr")


def report(broken: list[Import], rule: str) -> None:
    lines = [f"{found.place}: {found.importer} imports {found.imported}" for found in broken]
    assert not broken, f"{rule}:\n  " + "\n  ".join(lines)


# --- kernel_backend: engine → resources → {tracee, image} → host → abi ------------------------------------

RANK = {"abi": 0, "errors": 0, "stages": 0, "host": 1, "tracee": 2, "image": 2, "resources": 3}
TOP_RANK = 4  # the pipelines and faces


def room(module: str) -> str:
    """The first name below kernel_backend; empty for the package itself."""
    return [*module.split("."), ""][1]


def rank(module: str) -> int:
    return RANK.get(room(module), TOP_RANK)


def test_engine_layers_import_downwards_only() -> None:
    broken = [
        found
        for found in ENGINE
        if found.within("kernel_backend")
        and room(found.importer) != room(found.imported)
        and rank(found.importer) < TOP_RANK
        and rank(found.imported) >= rank(found.importer)
        and room(found.imported) != "errors"
    ]
    report(broken, "kernel_backend: engine → resources → {tracee, image} → host → abi")


def test_the_image_format_knows_no_processes() -> None:
    broken = [
        found
        for found in ENGINE
        if room(found.importer) == "image"
        and (found.within("kernel_backend.tracee") or found.within("kernel_backend.host"))
    ]
    report(broken, "image/ never imports tracee/ or host/")


def test_abi_holds_numbers_only() -> None:
    allowed = {"__future__", "ctypes", "dataclasses", "enum", "typing", "struct", "collections"}
    broken = [
        found
        for found in ENGINE
        if room(found.importer) == "abi"
        and not found.within("kernel_backend.abi")
        and found.imported.split(".")[0] not in allowed
    ]
    report(broken, "abi/ holds numbers and structs: no calls, no logic")


@pytest.mark.parametrize("stranger", "nbcr IPython ipykernel pickle cloudpickle dill mpi4py".split())
def test_the_engine_knows_nothing_of(stranger: str) -> None:
    report([found for found in ENGINE if found.within(stranger)], f"kernel_backend never imports {stranger}")


# --- nbcr: faces → session → {crs, handlers, store, objects}; crs → objects, kernel_backend ---------------

FACES = (
    "nbcr.cli",
    "nbcr.jupyter", "nbcr.panels",
)  # fmt: skip


def of(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def test_faces_are_imported_by_faces_only() -> None:
    """The in-process use cases reach the faces by their own, deferred hook only."""
    broken = [
        found
        for found in USERS
        if of(found.imported, *FACES)
        and not of(found.importer, *FACES)
        and not (found.importer == "nbcr" and found.deferred)
    ]
    report(broken, "faces (cli, jupyter) → session, never back")


@pytest.mark.parametrize("lower", ["crs", "handlers", "store", "objects"])
def test_lower_rooms_do_not_know_the_session(lower: str) -> None:
    broken = [found for found in USERS if of(found.importer, f"nbcr.{lower}") and found.within("nbcr.session")]
    report(broken, f"session → {lower}, never back")


def test_ranks_know_neither_sessions_nor_launchers() -> None:
    allowed = (
        "nbcr.mpi",
        "nbcr.objects",
        "nbcr.handlers",
        "nbcr.channel",
        "nbcr.sealed",
        "nbcr.errors",
        "nbcr.loaded",
        "nbcr.runtime",
        "nbcr.__version__",
    )
    broken = [
        found
        for found in USERS
        if of(found.importer, "nbcr.mpi") and found.within("nbcr") and not of(found.imported, *allowed)
    ]
    report(broken, "launcher → mpi → handlers, channel, objects; never session, crs, store")


def test_the_engine_is_used_by_components_only() -> None:
    allowed = ("nbcr.crs", "nbcr.helper", "nbcr.doctor")  # the doctor explains what the engine probed
    broken = [found for found in USERS if found.within("kernel_backend") and not of(found.importer, *allowed)]
    report(broken, "kernel_backend is imported by nbcr/crs (and the helper process) only")


def test_components_are_known_by_their_interface_only() -> None:
    """Not even the registry imports one: it loads them by name, when it is their turn."""
    face = {"__init__", "base", "registry"}
    modules = [f"nbcr.crs.{path.stem}" for path in (CHECKOUT / "nbcr" / "crs").glob("*.py") if path.stem not in face]
    outsiders = [found for found in USERS if not of(found.importer, *modules)]
    report([found for found in outsiders if of(found.imported, *modules)], "session → nbcr.crs, never a component")


def test_variables_are_saved_by_who_knows_nothing_of_processes() -> None:
    allowed = ("nbcr.objects", "nbcr.errors", "nbcr.store.files", "nbcr.__version__")
    broken = [
        found
        for found in USERS
        if of(found.importer, "nbcr.objects") and found.within("nbcr") and not of(found.imported, *allowed)
    ]
    report(broken, "objects → errors, store.files; never handlers, crs, session")


def test_variables_are_saved_through_the_session_and_loaded_when_wanted() -> None:
    """What needs cloudpickle is imported in functions only; `here` and `results` are the standard library's."""
    users, light = (
        ("nbcr.session", "nbcr.crs.objects", "nbcr.mpi.cooperative", "nbcr"),
        ("nbcr.objects.here", "nbcr.objects.results"),
    )
    outside = [found for found in USERS if found.within("nbcr.objects") and not of(found.importer, "nbcr.objects")]
    strangers = [
        found
        for found in outside
        if not (of(found.importer, *users[:3]) or found.importer in ("nbcr", "nbcr.rendering"))
    ]
    report(strangers, "faces → session → objects")
    eager = [found for found in outside if not found.deferred and not of(found.imported, *light)]
    report(eager, "nbcr.objects is loaded on first use")


@pytest.mark.parametrize("pickler", "pickle cloudpickle dill marshal shelve".split())
def test_the_store_sees_bytes(pickler: str) -> None:
    broken = [found for found in USERS if of(found.importer, "nbcr.store") and found.within(pickler)]
    report(broken, "store sees bytes, never pickles")


@pytest.mark.parametrize(
    ("library", "home"), [("mpi4py", "nbcr.mpi"), ("ipykernel", "nbcr.jupyter"), ("ipywidgets", "nbcr.panels")]
)
def test_libraries_stay_in_their_room(library: str, home: str) -> None:
    broken = [found for found in USERS if found.within(library) and not of(found.importer, home)]
    report(broken, f"{library} is imported in {home} only")


# --- what a Jupyter kernel has to load --------------------------------------------------------------------

HEAVY = "msgspec typer rich blake3 cloudpickle dill psutil numpy IPython ipykernel jupyter_client zmq"
MEASURE = """
import sys, time
before = time.process_time()
import nbcr
print(time.process_time() - before, *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_import_nbcr_is_light() -> None:
    """At most 60 ms of a processor, and nothing but the standard library: it is loaded into other people's sessions."""
    seconds = []
    for _ in range(5):
        words = subprocess.run(
            [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
        ).stdout.split()
        seconds.append(float(words[0]))
        assert not set(HEAVY.split()) & set(words[1:])
    assert min(seconds) <= 0.060, f"import nbcr takes {min(seconds) * 1000:.0f} ms"
