"""One file per kind of OS-kernel object, both directions in one room: capture() and rebuild()."""
