"""What would not come back and is only told of."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from kernel_backend.host import libc
from kernel_backend.resources import unsaved
from tests.support import needs

_JOIN_SESSION_KEYRING, _SESSION_KEYRING, _ADD_KEY = 1, -3, 248


@pytest.mark.parametrize("with_key", [True, False])
def test_session_keyrings_are_told_of_where_they_have_keys(with_key: bool) -> None:
    if not Path("/proc/keys").exists():
        needs("an OS kernel with keys")
    pipe, end = os.pipe()
    child = os.fork()
    if child == 0:  # a session's keyring ends with its last process
        try:
            keyring = libc.syscall("keyctl", _JOIN_SESSION_KEYRING, b"nbcr-test")
            if with_key:
                ctypes.CDLL(None).syscall(_ADD_KEY, b"user", b"nbcr-test", b"secret", 6, _SESSION_KEYRING)
            os.write(end, bytes([keyring in unsaved.keyrings_about().session]))
        finally:
            os._exit(0)
    os.close(end)
    try:
        assert os.read(pipe, 1) == bytes([with_key])
    finally:
        os.close(pipe)
        os.waitpid(child, 0)
