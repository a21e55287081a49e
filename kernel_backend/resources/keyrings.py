"""A user's keyring (keyrings(7)), which outlives processes: it and its keys stay as they are now.

Each user namespace has one of its own for the same user, and an ordinary user's fresh tree lives in a new one. So what
the user has outside is linked into that.
"""

from __future__ import annotations

from kernel_backend.host import libc
from kernel_backend.tracee.inject import WORD, Workshop

_GET_KEYRING_ID, _LINK = 0, 8  # keyctl(2)
_USER_KEYRING = WORD - 3  # KEY_SPEC_USER_KEYRING -4


def link_users(shop: Workshop) -> list[str]:
    """Let a process in a user namespace of its own find our user's keys; warnings."""
    try:
        ours = libc.syscall("keyctl", _GET_KEYRING_ID, _USER_KEYRING, 0)
    except OSError:
        return []  # there are none, or an OS kernel without keys
    try:
        shop.call("keyctl", _LINK, ours, _USER_KEYRING)
    except OSError as error:
        return [f"keys in this user's keyring (keyrings(7)) cannot be used by the restored processes: {error.strerror}"]
    return []
