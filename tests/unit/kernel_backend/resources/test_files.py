from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from kernel_backend.errors import FileChanged, ImageCorrupt, ResourceUnsupported
from kernel_backend.image.descriptions import MemoryFile, RegularFile, pack_path, unpack_path
from tests.support import needs
from tests.unit.kernel_backend.resources.carry import Carry, capture, holding, rebuilding


def test_a_file_keeps_its_offset_flags_and_content(carry: Carry, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("0123456789")
    rebuilt = carry(
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC)\n"
        "os.write(fd, b'abcdef'); os.lseek(fd, 2, 0); os.dup2(fd, 100)", path)  # fmt: skip
    assert path.read_text() == "abcdef", "opening again never truncates"
    assert os.read(rebuilt[100], 3) == b"cde"
    assert fcntl.fcntl(rebuilt[100], fcntl.F_GETFL) & os.O_APPEND


def test_dup_shares_and_a_second_open_does_not(carry: Carry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("0123456789")
    rebuilt = carry(
        "a = os.open(sys.argv[1], 0); os.dup2(a, 100); os.dup2(a, 101)\n"
        "os.dup2(os.open(sys.argv[1], 0), 102)", tmp_path / "file")  # fmt: skip
    assert rebuilt[100] == rebuilt[101]
    assert os.read(rebuilt[100], 4) == b"0123"
    assert os.lseek(rebuilt[102], 0, os.SEEK_CUR) == 0


def test_a_deleted_file_is_one_file_for_all_who_had_it_open(carry: Carry, tmp_path: Path) -> None:
    rebuilt = carry(
        "p = sys.argv[1]; a = os.open(p, os.O_RDWR | os.O_CREAT); os.write(a, b'x' * 5000); os.ftruncate(a, 1 << 20)\n"
        "os.dup2(a, 100); os.dup2(os.open(p, os.O_RDONLY), 101); os.unlink(p)", tmp_path / "gone")  # fmt: skip
    assert os.fstat(rebuilt[100]).st_nlink == 0
    assert os.fstat(rebuilt[100]).st_size == 1 << 20
    assert os.fstat(rebuilt[100]).st_blocks < 100, "holes stay holes"
    os.pwrite(rebuilt[100], b"new", 0)
    assert os.pread(rebuilt[101], 4, 0) == b"newx"
    assert os.lseek(rebuilt[100], 0, os.SEEK_CUR) == 5000
    assert not (tmp_path / "gone").exists()


def test_a_replaced_file_comes_back_as_it_was(carry: Carry, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    rebuilt = carry(
        "os.dup2(os.open(sys.argv[1], 0), 100); os.rename(sys.argv[2], sys.argv[1])", path, _written(tmp_path / "n")
    )
    assert os.pread(rebuilt[100], 10, 0) == b"old"
    assert path.read_text() == "new"


def _written(path: Path) -> Path:
    path.write_text("new")
    return path


def test_a_name_lost_is_found_again_by_another_link(carry: Carry, tmp_path: Path) -> None:
    rebuilt = carry(
        "p, q = sys.argv[1:]; os.dup2(os.open(p, os.O_RDWR | os.O_CREAT), 100); os.link(p, q); os.unlink(p)",
        tmp_path / "one", tmp_path / "two",
    )  # fmt: skip
    assert os.path.samestat(os.fstat(rebuilt[100]), (tmp_path / "two").stat())
    assert not (tmp_path / "one").exists()


def test_names_that_are_not_utf8(carry: Carry, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")
    Path(path).write_text("content")
    rebuilt = carry("import glob; os.dup2(os.open(glob.glob(sys.argv[1] + '/[!i]*')[0], 0), 100)", tmp_path)
    assert os.read(rebuilt[100], 9) == b"content"


@pytest.mark.parametrize("path", ["/plain", "/tmp/ä", "/tmp/\udcff"])
def test_packed_paths_come_back(path: str) -> None:
    assert unpack_path(pack_path(path)) == path
    pack_path(path).encode()


def test_a_missing_file_is_named_before_anything_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    with holding("os.dup2(os.open(sys.argv[1], 0), 100)", path) as held:
        captured = capture(held.pid, tmp_path)
    path.unlink()
    with pytest.raises(FileChanged, match=f"{path}, which descriptor 3 of process {held.pid}"), rebuilding(captured):
        pass


def test_a_file_that_became_too_short_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("0123456789")
    with holding("os.lseek(os.open(sys.argv[1], 0), 8, 0)", path) as held:
        captured = capture(held.pid, tmp_path)
    path.write_text("012")
    with rebuilding(captured) as rebuilt:
        assert any("only 3 bytes" in warning for warning in rebuilt.warnings)


def test_a_symbolic_link_put_in_the_place_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    with holding("os.dup2(os.open(sys.argv[1], 0), 100)", path) as held:
        captured = capture(held.pid, tmp_path)
    path.unlink()
    path.symlink_to("/etc/shadow")
    with pytest.raises(FileChanged), rebuilding(captured):
        pass


def test_in_place_an_unreachable_file_is_taken_from_the_present(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    with holding("os.dup2(os.open(sys.argv[1], 0), 100)", path) as held, path.open("rb") as live:
        captured = capture(held.pid, tmp_path)
        path.unlink()
        with rebuilding(captured, live={7: live.fileno()}) as rebuilt:
            assert os.path.sameopenfile(rebuilt[100], live.fileno())


def test_locks_of_the_description(carry: Carry, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x" * 100)
    rebuilt = carry(
        "fd = os.open(sys.argv[1], os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "fcntl.fcntl(fd, 37, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 10, 5, 0)); os.dup2(fd, 100)", path)  # fmt: skip
    with path.open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)  # taken later, inside a process that has the file
        with pytest.raises(OSError) as denied:
            fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 12)
        assert denied.value.errno in (errno.EAGAIN, errno.EACCES)
        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 20)
    lock = rebuilt.captured.at(100)
    assert lock.flock == fcntl.LOCK_EX  # type: ignore[union-attr]
    assert lock.flock_pid > 0  # type: ignore[union-attr]


def test_a_lease_is_noted_and_what_its_holder_was_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    code = (
        "signal.signal(signal.SIGIO, signal.SIG_IGN)\n"
        "fd = os.open(sys.argv[1], 0); os.dup2(fd, 100); os.close(fd)\n"
        "fcntl.fcntl(100, fcntl.F_SETLEASE, fcntl.F_RDLCK)"
    )
    with holding(code, path) as held:
        lease = capture(held.pid, tmp_path).at(100)
        assert (lease.lease, lease.lease_asked) == (fcntl.F_RDLCK, -1)
        with pytest.raises(BlockingIOError):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        lease = capture(held.pid, tmp_path).at(100)
        assert (lease.lease, lease.lease_asked) == (fcntl.F_RDLCK, fcntl.F_UNLCK)


def test_a_memfd_with_seals_and_two_descriptions(carry: Carry) -> None:
    rebuilt = carry(
        "fd = os.memfd_create('some name', os.MFD_ALLOW_SEALING); os.write(fd, b'content'); os.dup2(fd, 100)\n"
        "os.dup2(os.open(f'/proc/self/fd/{fd}', 0), 101); fcntl.fcntl(fd, 1033, 8)")  # fmt: skip
    entry = rebuilt.captured.at(100)
    assert isinstance(entry, MemoryFile)
    assert (entry.name, entry.seals) == ("some name", 8)
    assert os.pread(rebuilt[101], 10, 0) == b"content"
    assert os.path.sameopenfile(rebuilt[100], rebuilt[101])
    assert os.lseek(rebuilt[100], 0, os.SEEK_CUR) == 7


def test_devices(carry: Carry) -> None:
    rebuilt = carry("[os.dup2(os.open('/dev/' + n, 2), 100 + i) for i, n in enumerate(['null', 'zero', 'full'])]")
    assert os.read(rebuilt[101], 3) == bytes(3)
    with pytest.raises(OSError, match="No space left"):
        os.write(rebuilt[102], b"x")


def test_another_device_is_refused_with_its_driver(tmp_path: Path) -> None:
    needs("a device that may be opened", os.access("/dev/loop-control", os.R_OK))
    code = "os.open('/dev/loop-control', os.O_RDONLY)"
    with holding(code) as held, pytest.raises(ResourceUnsupported, match=r"descriptor 3 .* device /dev/loop-control"):
        capture(held.pid, tmp_path)


def test_a_hostile_image_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    with holding("os.dup2(os.memfd_create('x'), 100)") as held:
        captured = capture(held.pid, tmp_path)
    entry = captured.at(100)
    assert isinstance(entry, MemoryFile)
    entry.content = "../../etc/passwd"
    with pytest.raises(ImageCorrupt), rebuilding(captured):
        pass


def test_a_path_only_descriptor_and_a_folder(carry: Carry, tmp_path: Path) -> None:
    rebuilt = carry(
        "os.dup2(os.open(sys.argv[1], os.O_PATH), 100); os.dup2(os.open(sys.argv[1], os.O_DIRECTORY), 101)", tmp_path
    )
    assert isinstance(rebuilt.captured.at(100), RegularFile)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(rebuilt[100], 1)
    assert "image" in os.listdir(rebuilt[101])
