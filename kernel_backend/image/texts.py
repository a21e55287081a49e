"""Texts that are not UTF-8 (arguments, folders, names of threads), which JSON cannot hold: see pack_path.

Descriptions keep their paths packed and unpack them where they are used. Everything else is packed only in the file.
"""

from __future__ import annotations

from collections.abc import Callable

from kernel_backend.image.descriptions import pack_path, unpack_path
from kernel_backend.image.entries import Inventory

MARK = b'"\\u0000'  # how JSON shows where a packed text begins


def pack(inventory: Inventory) -> None:
    """Make all texts such that they can be written."""
    _change(inventory, pack_path)


def unpack(inventory: Inventory) -> None:
    """Make all texts what they were. Raises ValueError for what nobody packed."""
    _change(inventory, unpack_path)


def _change(inventory: Inventory, change: Callable[[str], str]) -> None:
    for process in inventory.processes:
        process.argv = [change(word) for word in process.argv]
        process.cwd = change(process.cwd)
        process.root = change(process.root)
        for group in process.control_groups:
            group.path = change(group.path)
        for file in (process.exe, *process.files):
            file.path = change(file.path)
        for vma in process.vmas:
            vma.name = change(vma.name)
        for thread in process.threads:
            thread.name = change(thread.name)
            for group in thread.control_groups:
                group.path = change(group.path)
            if thread.folders is not None:
                thread.folders.cwd, thread.folders.root = change(thread.folders.cwd), change(thread.folders.root)
    for zombie in inventory.zombies:
        zombie.name = change(zombie.name)
    for memory in inventory.shared_memory:
        memory.name = change(memory.name)
    inventory.warnings = [change(text) for text in inventory.warnings]
