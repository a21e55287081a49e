"""What validation.py and valid_descriptions.py share: how to say what does not fit, and rules about paths and pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from kernel_backend.abi import linux
from kernel_backend.image.descriptions import unpack_path
from kernel_backend.image.entries import Inventory, PageRun

_PAGE = linux.PAGE_SIZE


class Unfit(Exception):
    """What does not fit; in words for the user."""


def fail(what: str) -> NoReturn:
    """Something does not fit."""
    raise Unfit(what)


def expect(fits: bool, what: str) -> None:
    """Something has to be so; `what` would be wrong otherwise."""
    if not fits:
        raise Unfit(what)


def distinct(values: Sequence[object], what: str) -> None:
    """No value may come twice."""
    expect(len(set(values)) == len(values), f"{what} are not distinct")


def check_path(text: str, what: str) -> None:
    """An absolute path as the OS kernel shows it: without `..`, without a NUL."""
    try:
        path = unpack_path(text)
    except ValueError:
        fail(f"the path of {what}")
    expect(path.startswith("/") and "\0" not in path and ".." not in path.split("/"), f"the path of {what}")


def check_runs(runs: Sequence[PageRun], name: str, inventory: Inventory, what: str) -> None:
    """Whole pages, behind each other in a file that is long enough, nowhere overlapping in memory."""
    offset = 0
    for run in runs:
        aligned = not (run.address | run.length | run.offset) % _PAGE
        expect(aligned and run.length > 0 and run.offset == offset, f"page run at {run.address:#x} of {what}")
        offset += run.length
    if runs:
        expect(name in inventory.files and inventory.files[name].size >= offset, f"the pages of {what} are missing")
    end = 0
    for run in sorted(runs, key=lambda run: run.address):
        expect(run.address >= end, f"page runs of {what} overlap at {run.address:#x}")
        end = run.address + run.length


def is_page_size(size: int) -> bool:
    """Of huge pages; 0 stands for ordinary ones."""
    return size == 0 or (size > _PAGE and size & (size - 1) == 0)
