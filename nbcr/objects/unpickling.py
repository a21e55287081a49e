"""The unpickler: hands out this session's standing objects, and goes on where something cannot be imported."""

from __future__ import annotations

import contextlib
import gc
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from nbcr.objects.absent import absent_class
from nbcr.objects.standing import PRELUDE


def unpickled(data: bytes | memoryview, buffers: Sequence[memoryview], standing: list[Any]) -> Any:
    """The object that one unit holds."""
    unpickler = _Unpickler(_Parts(PRELUDE, data), buffers, standing)
    with _no_collections():
        unpickler.load()  # the prelude
        try:
            return unpickler.load()
        except SystemExit as error:  # of somebody's __setstate__: it is not to end the session
            raise pickle.UnpicklingError(f"it raises SystemExit({error}) when it is loaded") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: _Parts, buffers: Sequence[memoryview], standing: list[Any]) -> None:
        super().__init__(file, buffers=buffers)
        self._standing = standing

    def persistent_load(self, number: Any) -> Any:
        return self._standing[number]

    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__":  # whatever is called so now need not be what was
            return absent_class(f"it was saved by its name alone, {name}")
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError) as error:
            return absent_class(f"{module}.{name} cannot be imported: {' '.join(str(error).split())}")


class _Parts:
    """Several pieces of memory as one file."""

    def __init__(self, *parts: bytes | memoryview) -> None:
        self._parts = [memoryview(part) for part in parts if len(part)]

    def read(self, size: int = -1) -> bytes:
        taken = []
        while self._parts and size != 0:
            part = self._parts[0] if size < 0 else self._parts[0][:size]
            taken.append(bytes(part))
            self._drop(len(part))
            size -= len(part) if size > 0 else 0
        return b"".join(taken)

    def readinto(self, target: Any) -> int:
        target, size = memoryview(target).cast("B"), 0
        while self._parts and size < len(target):
            part = self._parts[0][: len(target) - size]
            target[size : size + len(part)] = part
            size += len(part)
            self._drop(len(part))
        return size

    def readline(self) -> bytes:
        line = b""
        while self._parts and not line.endswith(b"\n"):
            line += self.read(1)
        return line

    def _drop(self, size: int) -> None:
        self._parts[0] = self._parts[0][size:]
        if not len(self._parts[0]):
            del self._parts[0]


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Nothing of what is being made is garbage: looking for some would take longer than making it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
