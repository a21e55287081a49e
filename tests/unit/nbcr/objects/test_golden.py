"""Snapshots that earlier versions and other Pythons have written are readable for ever."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest

from nbcr.objects import Fate, load, verify
from tests.golden.objects import make

SNAPSHOTS = sorted(path for path in make.HERE.iterdir() if (path / "index").exists())

# What streams refer to: FORMAT.md promises that these keep their names.
REFERRED = {
    "arrays": "make_array_view make_ufunc map_array set_array_attributes",
    "buffers": "make_view",
    "classes": "make_class own_attribute set_class_state",
    "containers": "fill_container make_container",
    "contexts": "make_variable set_variable",
    "databases": "connect_to_file connect_to_memory make_row",
    "exceptions": "set_exception_state",
    "files": "open_file make_closed_file",
    "foreign": "load_library make_array_type make_structure",
    "frames": "set_index_references set_manager_state",
    "functions": "attribute fill_cell make_cache make_cell make_code make_function module_globals set_function_state",
    "instances": "make_instance set_instance_state",
    "logs": "find_logger",
    "modules": "fill_module",
    "pages": "list_elements",
    "references": "dead_proxy dead_reference fill_weak_set",
    "structs": "make_struct set_fields",
    "tensors": "make_generator make_storage make_tensor make_variable set_tensor_state",
    "texts": "find_match make_csv_reader make_csv_writer",
    "threads": "make_lock",
}


@pytest.fixture(params=SNAPSHOTS, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy that belongs to us alone: a checkout may be writable by a group."""
    copy = tmp_path / "golden"
    shutil.copytree(request.param, copy, copy_function=shutil.copyfile)
    for path in (copy, *copy.iterdir()):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return copy


def test_it_comes_back_whole(golden: Path) -> None:
    verify(golden)
    back = {"__name__": "__main__"}
    report = load(golden, back, with_surroundings=False)
    told = {verdict.name: verdict.reason for verdict in report.verdicts.values() if verdict.fate is not Fate.RESTORED}
    assert told == make.LOST
    assert [check for check in make.CHECKS if not eval(check, back)] == []


def test_there_is_one_of_every_python() -> None:
    assert {path.name for path in SNAPSHOTS} >= {f"format-1-python-3.{minor}" for minor in (11, 12, 13)}


@pytest.mark.parametrize("room", REFERRED)
def test_what_streams_refer_to_is_there(room: str) -> None:
    module = importlib.import_module(f"nbcr.objects.kinds.{room}")
    assert [name for name in REFERRED[room].split() if not callable(getattr(module, name, None))] == []
