"""What stands, while a snapshot is loaded, for an object that cannot be made again.

One missing file or package must not keep everything else from coming back. So unpickling goes on with an
`Absent` in the object's place, which takes whatever pickle does to it; afterwards the names that reach one
are told to be lost, with its reason.
"""

from __future__ import annotations

from typing import Any


class Absent:
    """In place of an object that did not come back. Takes any arguments, attributes, items and members."""

    def __new__(cls, *arguments: Any, **keywords: Any) -> Absent:
        made = super().__new__(cls)
        object.__setattr__(made, "nbcr_reason", getattr(cls, "nbcr_reason", ""))
        return made

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setattr__(self, name: str, value: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Take a member."""

    def extend(self, values: Any) -> None:
        """Take members."""

    def add(self, value: Any) -> None:
        """Take a member."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return absent(object.__getattribute__(self, "nbcr_reason"))


_made = 0


def taken() -> bool:
    """Whether any were made since the last time this was asked."""
    global _made
    made, _made = _made, 0
    return made > 0


def absent(reason: str) -> Any:
    """Stand in for an object that cannot be made again."""
    global _made
    _made += 1
    made = Absent()
    object.__setattr__(made, "nbcr_reason", reason)
    return made


def absent_class(reason: str) -> type:
    """Stand in for a class or function that cannot be imported: whatever it makes is absent."""
    global _made
    _made += 1
    return type("Absent", (Absent,), {"nbcr_reason": reason})


def reason_of(obj: Any) -> str | None:
    """Why `obj` did not come back, if it is only a stand-in."""
    if issubclass(type(obj), Absent):
        return str(object.__getattribute__(obj, "nbcr_reason"))
    if issubclass(type(obj), type) and issubclass(obj, Absent) and obj is not Absent:
        return str(obj.nbcr_reason)
    return None
