"""What the OS kernel refuses us, as errors that say what to do."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from kernel_backend import failures
from kernel_backend.errors import NoRoom, ResourceUnsupported

_NAME, _DEPTH = "n" * 200, 25


def test_a_path_that_is_too_long_to_be_told_is_refused_by_name(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY | os.O_CLOEXEC)
    for _ in range(_DEPTH):
        os.mkdir(_NAME, dir_fd=folder)
        inner = os.open(_NAME, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        os.close(folder)
        folder = inner
    try:
        os.readlink(f"/proc/self/fd/{folder}")
    except OSError as error:
        found = failures.of_dump(error, os.getpid())
    finally:
        os.close(folder)
        shutil.rmtree(tmp_path / _NAME)
    assert isinstance(found, ResourceUnsupported)
    assert f"/proc/self/fd/{folder}" in str(found)
    assert "shorter" in found.hint


def test_more_descriptors_than_we_may_have_are_told_with_the_limit() -> None:
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    for found in (failures.of_dump(error, os.getpid()), failures.of_restore(error)):
        assert isinstance(found, NoRoom)
        assert "ulimit" in found.hint
