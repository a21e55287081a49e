"""Images that mean harm: a restore does nothing for them that their user could not do, and nothing outside."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from kernel_backend import errors
from kernel_backend.image import reader
from tests.integration.engine.harness import Engine, Finished, Life, nothing_left, one_line
from tests.subjects.build import build
from tests.subjects.catalogue import BY_NAME
from tests.support import ProcessTracker, User, needs, tracked_processes
from tests.unit.kernel_backend.image.test_reader_fuzz import change, sealed

Document = dict[str, Any]
BOUND_S = 8.0


def rewrite(image: Path, by: Callable[[Document], object]) -> None:
    """Change what an image says, under a digest that is right again."""
    path = image / reader.INVENTORY
    document = json.loads(path.read_bytes())["inventory"]
    by(document)
    path.write_bytes(sealed(json.dumps(document).encode()))


def opened(document: Document, **description: Any) -> int:
    """Give the root process one more descriptor; its number."""
    rows = document["processes"][0]["descriptors"]
    number = max(row[0] for row in rows) + 1
    document["descriptions"].append(description)
    rows.append([number, False, len(document["descriptions"]) - 1])
    return number


def network(document: Document, **values: Any) -> None:
    """Give the image a network namespace."""
    document["net_namespace"] = {"inode": 1, "is_up": True, "mtu": 65536, "addresses": []} | values


def image_of(name: str, subject_user: User, engine_user: User, folder: Path) -> Path:
    """An image of a subject that runs as one user, written by another."""
    folder.chmod(0o755)
    subject_user.give(folder)
    with tracked_processes() as processes:
        engine = Engine(engine_user, folder, processes)
        life = Life(BY_NAME[name], subject_user, folder, processes).start()
        engine.dump(life.pid, folder / "image")
        life.close()
    return folder / "image"


@pytest.fixture(scope="module")
def own_image(ourselves: User, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_of("trees/zombies", ourselves, ourselves, tmp_path_factory.mktemp("own"))


def in_our_view(as_user: User) -> User:
    """The ordinary user, who usually has a view of the file system to himself: root does not dump out of that."""
    drop = ("setpriv", f"--reuid={as_user.uid}", f"--regid={as_user.gid}", "--clear-groups", "--")
    return dataclasses.replace(as_user, prefix=drop)


@pytest.fixture(scope="module")
def users_image(ourselves: User, as_user: User) -> Iterator[Path]:
    """Root's image of an ordinary user's process."""
    needs("root, who restores others' processes", available=not as_user.is_ourselves)
    user = in_our_view(as_user)
    with tempfile.TemporaryDirectory(prefix="nbcr-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        program = Path(folder) / "program"
        shutil.copy(build(BY_NAME["memory/anonymous"].source), program)
        patch.setattr("tests.integration.engine.harness.command", lambda _, base: [str(program), str(base)])
        yield image_of("memory/anonymous", user, ourselves, Path(folder))


@pytest.fixture
def engine(ourselves: User, folder: Path, processes: ProcessTracker) -> Iterator[Engine]:
    engine = Engine(ourselves, folder, processes)
    with nothing_left(engine):
        yield engine


def expect_refused(done: Finished, *statuses: int) -> str:
    assert done.status in statuses, done
    return one_line(done)


# --- what an image says --------------------------------------------------------------------------------------------


def root(document: Document) -> Document:
    found: Document = document["processes"][0]
    return found


def locked(document: Document) -> None:
    """More memory than there is, locked."""
    vma = max(root(document)["vmas"], key=lambda vma: vma["end"] * (vma["kind"] == "anon" and vma["end"] < 2**46))
    more = {
        **vma,
        "start": vma["end"] + 2**30,
        "end": vma["end"] + 2**30 + 2**44,
        "prot": 3,
        "locked": True,
        "name": "",
    }
    root(document)["vmas"].append(more)
    root(document)["vmas"].sort(key=lambda vma: vma["start"])


def unwritten(document: Document, name: str) -> None:
    document["files"][name] = document["files"].pop(next(iter(document["files"])))


def zombie(document: Document, exit_code: int) -> None:
    document["zombies"][0]["exit_code"] = exit_code


def renumber(document: Document, new: int) -> None:
    old = document["root_pid"]
    text = (
        json.dumps(document).replace(f'"pid": {old},', f'"pid": {new},').replace(f'"ppid": {old},', f'"ppid": {new},')
    )
    changed = json.loads(text.replace(f'"tid": {old},', f'"tid": {new},'))
    document.clear()
    document.update(changed | {"root_pid": new})


def shared(document: Document, name: str) -> None:
    document["shared_memory"].append(
        {"key": "0:2", "kind": "file", "size": 4096, "name": name, "runs": [], "pages": "shared-1.img"}
    )


TCP = {"kind": "tcp", "family": 2, "host": "127.0.0.1", "port": 1}
ADDRESS = {"family": 2, "prefix": 8, "scope": 254, "address": "fwAAAQ==", "label": "lo"}
BPF_MAP = {"kind": "bpf_map", "id": 1, "type": 1, "key_size": 4, "value_size": 8, "max_entries": 2}
IO_URING = {
    "kind": "io_uring",
    "sq_entries": 4,
    "cq_entries": 8,
    "layout": [0, 4, 16, 24, 36, 32, 192, 8, 12, 20, 28, 44, 64, 40],
}
CORRUPT = errors.ImageCorrupt.exit_code
FILTERED = CORRUPT if os.geteuid() == 0 else errors.HostUnsupported.exit_code


def instance(document: Document, **values: Any) -> None:
    """Give the image an io_uring instance."""
    opened(document, **IO_URING | values)


def shown(document: Document, **values: Any) -> None:
    """Give the image an io_uring instance, and the root process a mapping of it."""
    instance(document)
    vma = {"start": 0x20000, "end": 0x21000, "prot": 3, "kind": "io_uring", "private": False}
    root(document)["vmas"].insert(0, vma | {"ring": len(document["descriptions"]) - 1} | values)


LIES: dict[str, tuple[Callable[[Document], object], int]] = {
    "descriptors of nobody": (lambda d: root(d).update(table_of=1), CORRUPT),
    "folders of itself": (lambda d: root(d).update(folders_of=root(d)["pid"]), CORRUPT),
    "a seccomp filter that is none": (lambda d: root(d).update(seccomp={"filters": [[0, "AAAAAAAAAAA="]]}), FILTERED),
    "Multipath TCP to elsewhere": (
        lambda d: opened(d, kind="plain", family=2, type=1, protocol=262, peer="AgAACcAAAgcAAAAAAAAAAA=="),
        errors.ResourceUnsupported.exit_code,
    ),
    "half a segment descriptor": (lambda d: root(d).update(segments="AQID"), CORRUPT),
    "a gate among segment descriptors": (lambda d: root(d).update(segments="AAAAAADsAAA="), CORRUPT),
    "a segment of the OS kernel's": (lambda d: root(d).update(segments="//8AAACTzwA="), CORRUPT),
    "code of 64 bits in a segment of its own": (lambda d: root(d).update(segments="//8AAAD7rwA="), CORRUPT),
    "a selector in the OS kernel": (
        lambda d: root(d)["threads"][0].update(dispatch={"selector": 1 << 55, "offset": 0, "length": 0}), CORRUPT
    ),
    "calls taken from nowhere": (
        lambda d: root(d)["threads"][0].update(dispatch={"selector": 0, "offset": 4096, "length": 0}), CORRUPT
    ),
    "a UTS namespace of nobody": (lambda d: root(d).update(uts=0), CORRUPT),
    "a file elsewhere": (lambda d: unwritten(d, "../../etc/shadow"), CORRUPT),
    "a file by its absolute name": (lambda d: unwritten(d, "/etc/shadow"), CORRUPT),
    "content elsewhere": (lambda d: opened(d, kind="file", path="/x", deleted=True, content="../x-1.img"), CORRUPT),
    "overlapping runs": (lambda d: root(d)["pagemap"].append(list(root(d)["pagemap"][0])), CORRUPT),
    "pages of nobody": (lambda d: root(d).setdefault("as_parent", []).append(root(d)["pagemap"].pop()[:2]), CORRUPT),
    "a run outside": (lambda d: root(d)["pagemap"][0].__setitem__(0, 1 << 46), CORRUPT),
    "a run in the OS kernel": (lambda d: root(d)["pagemap"][0].__setitem__(0, 1 << 55), CORRUPT),
    "a huge descriptor number": (lambda d: root(d)["descriptors"][0].__setitem__(0, 2**30 - 1), CORRUPT),
    "pid 0": (lambda d: renumber(d, 0), CORRUPT),
    "pid -1": (lambda d: renumber(d, -1), CORRUPT),
    "a zombie that was stopped": (lambda d: zombie(d, 19), CORRUPT),
    "a zombie by a signal that kills nobody": (lambda d: zombie(d, 17), CORRUPT),
    "a zombie by no signal": (lambda d: zombie(d, 100), CORRUPT),
    "stopped by SIGKILL": (lambda d: root(d).update(stopped_by=9), CORRUPT),
    "all memory locked": (lambda d: root(d).update(lock_future=1), CORRUPT),
    "more locked than there is": (locked, errors.NoRoom.exit_code),
    "a queue in a folder": (lambda d: opened(d, kind="mqueue", name="../x", device=1, inode=1), CORRUPT),
    "a queue's name that is none": (lambda d: opened(d, kind="mqueue", name="\0zz", device=1, inode=1), CORRUPT),
    "a memfd's name with NUL": (lambda d: opened(d, kind="memfd", name="a\0b", device=1, inode=1), CORRUPT),
    "shared memory above": (lambda d: shared(d, "/dev/shm/../x"), CORRUPT),
    "shared memory elsewhere": (lambda d: shared(d, "/tmp/x"), CORRUPT),
    "a watch above": (lambda d: opened(d, kind="inotify", watches=[{"wd": 1, "path": "/tmp/..", "mask": 1}]), CORRUPT),
    "a guard of files": (
        lambda d: opened(d, kind="fanotify", marks=[{"object": "inode", "path": "/tmp", "mask": 1 << 16}]), CORRUPT
    ),
    "a host to look up": (lambda d: opened(d, **TCP | {"host": "localhost"}), CORRUPT),
    "a socket's name with NUL": (lambda d: opened(d, kind="unix", type=1, inode=1, name="L3RtcC94AHk="), CORRUPT),
    "an io_uring instance of three": (lambda d: instance(d, sq_entries=3), CORRUPT),
    "an io_uring instance of a million": (lambda d: instance(d, sq_entries=1 << 20), CORRUPT),
    "an io_uring instance that has served billions": (
        lambda d: instance(d, rings=base64.b64encode(struct.pack("<4I", *[2**32 - 16] * 4)).decode()), CORRUPT
    ),
    "an io_uring instance with too much": (
        lambda d: instance(d, rings=base64.b64encode(struct.pack("<4I", 1, 6, 1, 1)).decode()), CORRUPT
    ),
    "an io_uring instance in too many bytes": (
        lambda d: instance(d, requests=base64.b64encode(bytes(4 * 64 + 1)).decode()), CORRUPT
    ),
    "an io_uring instance for a stranger": (lambda d: instance(d, issuer=1), CORRUPT),
    "an io_uring instance of no size": (lambda d: instance(d, layout=[1 << 30] * 14), CORRUPT),
    "an io_uring instance of another OS kernel": (
        lambda d: instance(d, layout=[0, 4, 16, 24, 36, 32, 256, 8, 12, 20, 28, 44, 128, 40]),
        errors.HostUnsupported.exit_code,
    ),
    "a thousand large io_uring instances": (
        lambda d: [instance(d, sq_entries=1 << 15, layout=[*range(0, 24, 4), 192, *range(24, 48, 4), 64])
                   for _ in range(1000)], CORRUPT
    ),
    "an io_uring instance with files of nobody": (lambda d: instance(d, files=[len(d["descriptions"]) + 7]), CORRUPT),
    "an io_uring instance with buffers without end": (
        lambda d: instance(d, buffers=[{"address": 4096, "size": 4096}] * (1 << 14)), CORRUPT
    ),
    "an io_uring instance numbered for a stranger": (
        lambda d: instance(d, numbers=[{"tid": 1, "number": 0}]), CORRUPT
    ),
    "memory of no io_uring instance": (lambda d: shown(d, ring=0), CORRUPT),
    "a part of an io_uring instance": (lambda d: shown(d, offset=0x1000), CORRUPT),
    "an io_uring instance of one's own": (lambda d: shown(d, private=True), CORRUPT),
    "a BPF map of a terabyte": (lambda d: opened(d, **BPF_MAP | {"max_entries": 2**31, "value_size": 512}), CORRUPT),
    "many BPF maps": (lambda d: [opened(d, **BPF_MAP | {"id": n, "max_entries": 2**16}) for n in range(20)], CORRUPT),
    "a BPF map for many processors": (
        lambda d: opened(d, **BPF_MAP | {"type": 5, "processors": 2**30, "max_entries": 1}), CORRUPT
    ),
    "a BPF map of programs": (lambda d: opened(d, **BPF_MAP | {"type": 3}), CORRUPT),
    "a BPF map with a node": (lambda d: opened(d, **BPF_MAP | {"map_flags": 4}), CORRUPT),
    "half an entry of a BPF map": (lambda d: opened(d, **BPF_MAP | {"keys": "AAAAAA==", "values": "AAAA"}), CORRUPT),
    "a BPF map that is two": (lambda d: (opened(d, **BPF_MAP), opened(d, **BPF_MAP | {"type": 2})), CORRUPT),
    "a packet socket of another type": (lambda d: opened(d, kind="packet", type=1), CORRUPT),
    "a setting above": (lambda d: network(d, settings={"net/../kernel/core_pattern": "|/tmp/x"}), CORRUPT),
    "a setting elsewhere": (lambda d: network(d, settings={"kernel/core_pattern": "|/tmp/x"}), CORRUPT),
    "half an address": (lambda d: network(d, addresses=[ADDRESS | {"address": "fwAA"}]), CORRUPT),
    "an address of no family": (lambda d: network(d, addresses=[ADDRESS | {"family": 7}]), CORRUPT),
    "a network device with NUL": (lambda d: opened(d, kind="packet", type=3, bound_device="a\0b"), CORRUPT),
    "another process's root": (lambda d: opened(d, kind="proc", path="/proc/1/root/etc/shadow"), CORRUPT),
    "a device": (lambda d: opened(d, kind="device", path="/dev/kmsg"), errors.HostUnsupported.exit_code),
    "a FIFO that is none": (lambda d: opened(d, kind="file", path="/dev/null", mode=0o100644), 11),
    "a firewall's rules": (lambda d: opened(d, **TCP | {"port": 0, "options": [[0, 64, "AAAAAA=="]]}), 9),
    "a connection to elsewhere": (
        lambda d: (
            opened(d, **TCP | {"state": 10, "port": 0}),
            opened(d, **TCP | {"peer_host": "192.0.2.7", "peer_port": 9, "port": 0, "other": "inside",
                   "listener": len(d["descriptions"]) - 1, "early": "AAAA", "state": 1}),
        ), errors.HostUnsupported.exit_code),
}  # fmt: skip


def test_what_is_no_image(engine: Engine, own_image: Path, folder: Path, processes: ProcessTracker) -> None:
    """Each is refused before anything is touched, also in place."""
    present = processes.start(["sleep", "600"])
    for number, (name, (lie, status)) in enumerate(LIES.items()):
        image = folder / f"image{number}"
        shutil.copytree(own_image, image)
        rewrite(image, lie)
        try:
            reader.read_inventory(image)  # with which a restore begins
        except errors.ImageCorrupt:
            assert status == CORRUPT, name
            continue
        done = engine.run("restore", image, "--into", present.pid, "--detach")
        assert done.status == status, f"{name}: {done}"
        one_line(done)
        assert present.poll() is None, name
        assert processes.strays() == [], name
    assert Path(f"/proc/{present.pid}/comm").read_text() == "sleep\n"


@pytest.mark.parametrize("number", ["init", "ours"])
def test_a_number_that_somebody_has(number: str, engine: Engine, own_image: Path, folder: Path) -> None:
    """Nobody is touched for it: the tree has others, or these in a namespace of its own, or is refused."""
    shutil.copytree(own_image, folder / "image")
    rewrite(folder / "image", lambda d: renumber(d, 1 if number == "init" else os.getpid()))
    done = engine.run("restore", folder / "image", "--detach", "--json")
    if done.status:
        one_line(done)
        return
    pids = done.document["pids"]
    engine.processes.adopt(done.document["pid"])
    assert not {1, os.getpid()} & set(pids.values())


def test_a_socket_name_that_others_have(
    engine: Engine, own_image: Path, folder: Path, processes: ProcessTracker
) -> None:
    """It is not taken away from them, neither by a fresh tree nor by one that takes a process's place."""
    path = folder / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        shutil.copytree(own_image, folder / "image")
        rewrite(folder / "image", lambda document: bound(document, path))
        present = processes.start(["sleep", "600"])
        for where in ((), ("--into", present.pid)):
            done = engine.run("restore", folder / "image", "--detach", *where)
            assert str(path) in expect_refused(done, errors.HostUnsupported.exit_code)
        assert present.poll() is None
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_watch_numbers_without_end(engine: Engine, own_image: Path, folder: Path, processes: ProcessTracker) -> None:
    """Numbers are reached by counting; an image may not have us count for ever."""
    watches = [{"wd": number * 90_000, "path": "/", "mask": 2} for number in range(1, 20_000)]
    shutil.copytree(own_image, folder / "image")
    rewrite(folder / "image", lambda document: opened(document, kind="inotify", watches=watches))
    done = engine.must("restore", folder / "image", "--detach", "--json")
    processes.adopt(done.document["pid"])
    assert "too high a number" in done.err


# --- what stands in place of an image's files ----------------------------------------------------------------------


@pytest.mark.parametrize("what", ["link", "hard link", "FIFO", "folder"])
def test_other_things_in_place_of_files(what: str, engine: Engine, own_image: Path, folder: Path) -> None:
    image = folder / "image"
    shutil.copytree(own_image, image)
    pages = next(path for path in image.iterdir() if path.name.startswith("pages") and path.stat().st_size)
    target = folder / "elsewhere"
    target.write_bytes(pages.read_bytes())
    pages.unlink()
    if what == "link":
        pages.symlink_to(target)
    elif what == "hard link":
        needs("root, to have a file of somebody else's", available=os.geteuid() == 0)
        os.chown(target, 12345, -1)
        os.link(target, pages)
    elif what == "FIFO":
        os.mkfifo(pages)
    else:
        pages.mkdir()
    for command in (["verify", image], ["restore", image, "--trust", "--detach"]):
        line = expect_refused(engine.run(*command), CORRUPT, errors.ImageDenied.exit_code)
        assert str(pages) in line


SWAP = """
import os, sys
from pathlib import Path
from kernel_backend.engine import restore
image = Path(sys.argv[1])
def swap():
    image.rename(image.with_name("moved"))
    image.mkdir()
    for path in image.with_name("moved").iterdir():
        (image / path.name).write_bytes(bytes(path.stat().st_size))
print(restore(image, on_ready=swap).pid)
"""


def test_another_folder_put_there_when_all_was_checked(
    ourselves: User, folder: Path, processes: ProcessTracker
) -> None:
    engine = Engine(ourselves, folder, processes)
    life = Life(BY_NAME["memory/anonymous"], ourselves, folder, processes).start()
    engine.dump(life.pid, folder / "image")
    life.expect_killed()
    argv = [sys.executable, "-c", SWAP, folder / "image"]
    with (folder / "out").open("w+") as out:
        subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, check=True, env=engine.environ())
        out.seek(0)
        life.continue_as(int(out.read()))
    processes.adopt(life.pid)
    life.expect_pass()
    life.close()


# --- what root would do for a user ---------------------------------------------------------------------------------


@pytest.fixture
def roots_own(folder: Path) -> Path:
    """A folder that only root may enter."""
    place = folder / "root's"
    place.mkdir(mode=0o700)
    (place / "secret").write_text("secret")
    (place / "program").write_bytes(Path(shutil.which("true") or "").read_bytes())
    (place / "program").chmod(0o755)
    os.mkfifo(place / "fifo")
    return place


def identity_of(path: Path) -> Document:
    found = path.stat()
    return {"path": str(path), "size": found.st_size, "mtime_ns": found.st_mtime_ns, "device": found.st_dev,
            "inode": found.st_ino, "segments": "", "build_id": ""}  # fmt: skip


def map_privately(document: Document, path: Path) -> None:
    files, vmas = root(document)["files"], root(document)["vmas"]
    files.append(identity_of(path))
    vmas.append({"start": 0x20000000, "end": 0x20001000, "prot": 1, "kind": "file", "file": len(files) - 1})
    vmas.sort(key=lambda vma: vma["start"])


def bound(document: Document, path: Path) -> None:
    opened(document, kind="unix", type=2, inode=1, name=_base64(os.fsencode(path)))


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


FORBIDDEN: dict[str, Callable[[Document, Path], object]] = {
    "a file, to write": lambda d, own: opened(d, kind="file", path=str(own / "secret"), mode=0o100600, flags=2),
    "/etc/shadow": lambda d, own: opened(d, kind="file", path="/etc/shadow", mode=os.stat("/etc/shadow").st_mode),
    "a FIFO": lambda d, own: opened(d, kind="pipe", path=str(own / "fifo"), device=1, inode=1, other="outside"),
    "a mapped file": lambda d, own: map_privately(d, own / "secret"),
    "a program": lambda d, own: root(d).update(exe=identity_of(own / "program")),
    "a working folder": lambda d, own: root(d).update(cwd=str(own)),
    "a socket's name": lambda d, own: bound(d, own / "socket"),
    "init's memory map": lambda d, own: opened(d, kind="proc", path="/proc/1/maps"),
    "a seccomp filter": lambda d, own: root(d).update(seccomp={"filters": [[0, _base64(b"\6\0\0\0\0\0\xff\x7f")]]}),
    "a setting of the OS kernel": lambda d, own: opened(d, kind="proc", path="/proc/sys/kernel/core_pattern", flags=1),
}


def test_what_its_user_could_not_open(
    engine: Engine, users_image: Path, folder: Path, roots_own: Path, processes: ProcessTracker
) -> None:
    for number, (name, wish) in enumerate(FORBIDDEN.items()):
        image = folder / f"image{number}"
        shutil.copytree(users_image, image)
        rewrite(image, lambda document, wish=wish: wish(document, roots_own))  # type: ignore[misc]
        before = sorted(path.name for path in roots_own.iterdir())
        done = engine.run("restore", image, "--detach", "--json")
        assert done.status, f"{name}: {done}"
        one_line(done)
        assert sorted(path.name for path in roots_own.iterdir()) == before, name
        assert processes.strays() == [], name


def test_roots_shared_memory_is_not_a_users(engine: Engine, users_image: Path, folder: Path) -> None:
    """Neither attached, nor filled, nor removed, although the image has its very number and size."""
    made = subprocess.run(["ipcmk", "-M", "8192", "-p", "0600"], capture_output=True, text=True, check=True)
    number = int(made.stdout.split()[-1])
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    key = next(int(row[0]) for row in rows if row[1] == str(number))
    try:
        shutil.copytree(users_image, folder / "image")
        rewrite(folder / "image", lambda document: attached(document, number, key))
        (folder / "image" / "shared-0.img").touch(0o600)
        done = engine.run("restore", folder / "image", "--detach")
        assert done.status == errors.HostUnsupported.exit_code, done
        assert str(number) in one_line(done)
        assert f" {number} " in Path("/proc/sysvipc/shm").read_text()
    finally:
        subprocess.run(["ipcrm", "-m", str(number)], check=True)


def attached(document: Document, number: int, key: int) -> None:
    document["shared_memory"].append(
        {"key": "0:1", "kind": "sysv", "size": 8192, "name": "", "runs": [], "pages": "shared-0.img", "sysv_id": number,
         "sysv_key": key, "sysv_mode": 0o1600}
    )  # fmt: skip
    document["files"]["shared-0.img"] = {"size": 0, "blake3": blake3(b"").hexdigest()}
    root(document)["vmas"].append(
        {"start": 0x20000000, "end": 0x20002000, "prot": 3, "kind": "sysv", "shared": "0:1", "private": False}
    )
    root(document)["vmas"].sort(key=lambda vma: vma["start"])


@pytest.mark.parametrize(
    "name", ["files/proc_self", "ipc/sysv_shm", "sockets/unix_named", "identity/deleted_folder", "memory/memfd"]
)
def test_what_its_user_may_have(
    name: str, ourselves: User, as_user: User, folder: Path, processes: ProcessTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root restores an ordinary user's processes, with that user's rights: nothing is missing for it."""
    needs("root, who restores others' processes", available=not as_user.is_ourselves)
    user = in_our_view(as_user)
    user.give(folder)
    folder.chmod(0o755)
    program = folder / "program"
    shutil.copy(build(BY_NAME[name].source), program)
    monkeypatch.setattr("tests.integration.engine.harness.command", lambda _, base: [str(program), str(base)])
    engine, life = Engine(ourselves, folder, processes), Life(BY_NAME[name], user, folder, processes)
    with nothing_left(engine):
        life.start()
        before = life.observe()
        engine.dump(life.pid, folder / "image")
        life.expect_killed()
        life.continue_as(engine.restore(folder / "image"))
        life.expect_like(before)
        life.expect_pass()
    life.close()


# --- anything at all -----------------------------------------------------------------------------------------------


def test_whatever_is_taken_for_an_image(
    as_user: User, user_dir: Path, processes: ProcessTracker, rng: random.Random
) -> None:
    """What a reader lets pass is restored, for a bounded time: it runs, or is refused and leaves nothing."""
    good = image_of("sockets/in_flight", as_user, as_user, user_dir)
    (user_dir / "again").mkdir()
    as_user.give(user_dir / "again")
    engine = Engine(as_user, user_dir / "again", processes)
    until = time.monotonic() + BOUND_S
    tried = 0
    while time.monotonic() < until:
        image = user_dir / f"image{tried}"
        shutil.copytree(good, image)
        while True:
            shutil.copy(good / reader.INVENTORY, image / reader.INVENTORY)
            rewrite(image, lambda document: [change(document, rng) for _ in range(rng.choice((1, 2)))])
            try:
                reader.read_inventory(image)
                break
            except errors.EngineError:
                continue
        as_user.give(image, *image.iterdir())
        with nothing_left(engine):
            done = engine.run("restore", image, "--detach", "--json")
            if done.status:
                assert done.status < 20, done
                one_line(done)
            else:
                processes.adopt(done.document["pid"])
                with contextlib.suppress(ProcessLookupError):  # what it was made to do may have ended it
                    os.kill(done.document["pid"], 9)
        tried += 1
