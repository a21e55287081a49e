"""Namespaces, where they cannot be had again: by whom, in place of whom; and nothing of the host's is touched."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kernel_backend.stages import Stage
from tests.integration.engine.harness import Engine, Life
from tests.integration.engine.test_hostile import Document, in_our_view, rewrite
from tests.subjects.catalogue import BY_NAME, Subject
from tests.support import ProcessTracker, User, children_of, needs, wait_for_end

Begin = Callable[[Subject, User], tuple[Engine, Life]]
UTS = BY_NAME["identity/uts"]


@pytest.fixture(autouse=True)
def the_host_keeps_its_names() -> Iterator[None]:
    needs("root, to have UTS namespaces", available=os.geteuid() == 0)
    before = names_of("self")
    yield
    assert names_of("self") == before


def names_of(process: int | str) -> list[str]:
    """Host and domain name as a process has them."""
    looking = ["nsenter", f"--uts=/proc/{process}/ns/uts", "cat", "/proc/sys/kernel/hostname"]
    told = subprocess.run([*looking, "/proc/sys/kernel/domainname"], capture_output=True, text=True, check=True)
    return told.stdout.splitlines()


def rename(process: int, name: str) -> None:
    """Change the host's name where a process lives, which is not here."""
    there = f"/proc/{process}/ns/uts"
    assert os.stat(there).st_ino != os.stat("/proc/self/ns/uts").st_ino
    renaming = ["sh", "-c", 'echo "$0" >/proc/sys/kernel/hostname', name]
    subprocess.run(["nsenter", f"--uts={there}", *renaming], check=True)


# Sets the loopback device up, with a second address
LOOPBACK = f"""{sys.executable} -c '
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 1))
    fcntl.ioctl(s, 0x8916, struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, bytes([10, 1, 2, 3])))
'"""
NAMING = "echo inside >/proc/sys/kernel/hostname"


def sleeper(processes: ProcessTracker, user: User, folder: Path, kind: str = "--uts", first: str = NAMING) -> int:
    """A user's process, in a namespace that root has made, and in which `first` was done."""
    command = user.command(["sleep", "600"], cwd=folder)
    started = processes.start(
        ["unshare", kind, "sh", "-c", f'{first}; exec "$@"', "sh", *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while Path(f"/proc/{started.pid}/comm").read_text() != "sleep\n":
        assert started.poll() is None, "there is no such user"
        time.sleep(0.01)
    return started.pid


def test_beside_its_original(begin: Begin, ourselves: User, folder: Path) -> None:
    """The pids are in use, so the tree gets a pid namespace of its own; its names are its own as well."""
    engine, life = begin(BY_NAME["trees/uts:root"], ourselves)
    engine.dump(life.pid, folder / "image", "running")
    copy = engine.restore(folder / "image")
    assert names_of(copy) == names_of(life.pid)
    rename(copy, "copied")
    assert names_of(copy)[0] == "copied"
    assert names_of(life.pid)[0] == "of-the-root"
    os.kill(copy, signal.SIGKILL)
    assert wait_for_end(copy, 10)
    life.expect_pass()


def test_in_place_of_who_lives_elsewhere(
    begin: Begin, ourselves: User, folder: Path, processes: ProcessTracker
) -> None:
    engine, life = begin(UTS, ourselves)
    engine.dump(life.pid, folder / "image", "running")
    for argv in (["sleep", "600"], ["unshare", "--uts", "sleep", "600"]):
        other = processes.start(argv)
        before = names_of(other.pid)
        told = engine.refuses("restore", folder / "image", "--into", other.pid)
        assert "another UTS namespace" in told
        assert names_of(other.pid) == before
        assert not wait_for_end(other.pid, 0)
    life.expect_pass()


def test_in_place_of_who_has_moved_since(begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin(replace(BY_NAME["identity/confined:data"], name="identity/confined:namespace"), ourselves)
    engine.must("dump", life.pid, folder / "image")
    life.spoil()
    assert "UTS namespace of its own" in engine.refuses("restore", folder / "image", "--into", life.pid)
    life.expect_pass()


def test_an_image_that_would_rename_the_host(begin: Begin, ourselves: User, folder: Path) -> None:
    """It says that its root lives where we do, and that this has another name."""
    engine, life = begin(BY_NAME["memory/anonymous"], ourselves)
    engine.dump(life.pid, folder / "image", "running")
    ours = os.stat("/proc/self/ns/uts").st_ino

    def claim(document: Document) -> None:
        document["uts_namespaces"] = [{"inode": ours, "host_name": "ZXZpbA==", "domain_name": ""}]
        document["processes"][0]["uts"] = 0

    rewrite(folder / "image", claim)
    assert "names of the host" in engine.refuses("restore", folder / "image", "--into", life.pid)
    assert socket.gethostname() != "evil"
    life.expect_pass()


def test_a_users_process_in_place(as_user: User, folder: Path, processes: ProcessTracker) -> None:
    """It needs no rights as long as it lives where it did, and nobody has changed the names."""
    as_user.give(folder)
    engine = Engine(as_user, folder, processes)
    pid = sleeper(processes, as_user, folder)
    engine.must("dump", pid, folder / "image", "--leave", "running")
    engine.must("restore", folder / "image", "--into", pid)
    assert names_of(pid)[0] == "inside"
    rename(pid, "renamed")
    assert "names of the host have changed" in engine.refuses("restore", folder / "image", "--into", pid)
    assert names_of(pid)[0] == "renamed"
    assert not wait_for_end(pid, 0)


def test_a_users_process_made_anew_by_the_user(as_user: User, folder: Path, processes: ProcessTracker) -> None:
    as_user.give(folder)
    engine = Engine(as_user, folder, processes)
    pid = sleeper(processes, as_user, folder)
    engine.must("dump", pid, folder / "image", "--leave", "killed")
    processes.reap(pid)
    assert "takes CAP_SYS_ADMIN" in engine.refuses("restore", folder / "image", "--detach")


def test_a_users_process_made_anew_by_root(
    as_user: User, ourselves: User, folder: Path, processes: ProcessTracker
) -> None:
    """The name of the host may decide what a user is allowed, so root gives none, unless it trusts the image."""
    as_user.give(folder)
    engine = Engine(ourselves, folder, processes)
    pid = sleeper(processes, in_our_view(as_user), folder)
    engine.must("dump", pid, folder / "image", "--leave", "killed")
    processes.reap(pid)
    assert "root gives no user" in engine.refuses("restore", folder / "image", "--detach")
    assert names_of(engine.restore(folder / "image", "--trust"))[0] == "inside"


# --- images that contradict themselves --------------------------------------------------------------------------------

TIME = {"inode": 1, "monotonic_ns": 0, "boottime_ns": 0, "monotonic_then_ns": 1, "boottime_then_ns": 1}
NOBODYS = {"inode": 1, "owner": 12345, "uid_map": [], "gid_map": [], "setgroups": False}
NAMES = {"inode": 1, "host_name": "", "domain_name": ""}
BINDING = 0x1000  # MS_BIND


@pytest.mark.parametrize(
    ("whole", "process"),
    [
        ({}, {"time": 0}),
        ({}, {"mount": 0}),
        ({}, {"user": 0}),
        ({"time_namespaces": [TIME]}, {"time": 0}),
        ({"user_namespaces": [NOBODYS]}, {"user": 0}),
        ({"uts_namespaces": [NAMES | {"owner": 0}]}, {"uts": 0}),
        ({"time_namespaces": [TIME | {"owner": 7}]}, {"time": 0, "time_of_children": 0}),
        ({"mount_namespaces": [{"inode": 1, "propagation": [["/", [BINDING]]]}]}, {"mount": 0}),
        ({"mount_namespaces": [{"inode": 1, "propagation": [["tmp/../etc", []]]}]}, {"mount": 0}),
    ],
)
def test_an_image_that_contradicts_itself(
    whole: Document, process: Document, begin: Begin, ourselves: User, folder: Path
) -> None:
    engine, life = begin(BY_NAME["memory/anonymous"], ourselves)
    engine.dump(life.pid, folder / "image", "running")

    def claim(document: Document) -> None:
        document.update(whole)
        document["processes"][0].update(process)

    rewrite(folder / "image", claim)
    assert "is inconsistent" in engine.refuses("restore", folder / "image", "--into", life.pid)
    life.expect_pass()


# --- users ------------------------------------------------------------------------------------------------------------

USERS = BY_NAME["identity/user_namespace"]


def test_in_place_of_who_has_other_users(
    begin: Begin, ourselves: User, folder: Path, processes: ProcessTracker
) -> None:
    """Nobody comes out of a user namespace."""
    engine, life = begin(USERS, ourselves)
    engine.dump(life.pid, folder / "image", "running")
    for argv in (["sleep", "600"], ["unshare", "--user", "sleep", "600"]):
        other = processes.start(argv)
        assert "another user namespace" in engine.refuses("restore", folder / "image", "--into", other.pid)
        engine.must("dump", other.pid, folder / f"image{other.pid}", "--leave", "running")
        assert "another user namespace" in engine.refuses("restore", folder / f"image{other.pid}", "--into", life.pid)
        assert not wait_for_end(other.pid, 0)
    life.expect_pass()


def test_a_users_namespace_by_root(as_user: User, ourselves: User, folder: Path, processes: ProcessTracker) -> None:
    """Root makes it as that user could, and nothing that he could not."""
    as_user.give(folder)
    engine = Engine(ourselves, folder, processes)
    command = in_our_view(as_user).command(["unshare", "--map-root-user", "sleep", "600"], cwd=folder)
    started = processes.start(command)
    while Path(f"/proc/{started.pid}/comm").read_text() != "sleep\n":
        assert started.poll() is None
        time.sleep(0.01)
    engine.must("dump", started.pid, folder / "image", "--leave", "killed")
    processes.reap(started.pid)
    shutil.copytree(folder / "image", folder / "more")
    for change in ({"uid_map": [[0, as_user.uid, 1], [1, 0, 1]]}, {"owner": 0}, {"gid_map": [[0, 0, 1]]}):
        rewrite(folder / "more", partial(claim_users, change))
        assert "other users or groups" in engine.refuses("restore", folder / "more", "--detach")
    copy = engine.restore(folder / "image")
    assert Path(f"/proc/{copy}/uid_map").read_text().split() == ["0", str(as_user.uid), "1"]
    assert proc_status(copy, "Uid") == [str(as_user.uid)] * 4


def claim_users(change: Document, document: Document) -> None:
    """Have an image tell otherwise of its user namespace."""
    document["user_namespaces"][0].update(change)


def proc_status(pid: int, name: str) -> list[str]:
    """A line of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(f"{name}:"))


def test_a_users_namespace_without_one_of_ours_around_it(begin: Begin, as_user: User, folder: Path) -> None:
    """Where pids need not be kept there is none: its parent is that of everybody."""
    engine, life = begin(BY_NAME["identity/user_namespace:uts"], as_user)
    engine.dump(life.pid, folder / "image")
    life.expect_killed()
    life.continue_as(engine.restore(folder / "image", "--pid", "any"))
    assert os.stat(f"/proc/{life.pid}/ns/pid").st_ino == os.stat("/proc/self/ns/pid").st_ino
    life.expect_pass()


def test_a_user_and_pid_namespace(ourselves: User, folder: Path, processes: ProcessTracker) -> None:
    """What is restored would have a pid namespace that belongs to nobody it knows."""
    engine = Engine(ourselves, folder, processes)
    outer = processes.start(["unshare", "--map-root-user", "--fork", "--pid", "sleep", "600"])
    while not (inner := [*children_of(outer.pid)]) or Path(f"/proc/{inner[0]}/comm").read_text() != "sleep\n":
        assert outer.poll() is None
        time.sleep(0.01)
    assert "pid namespace" in engine.refuses("dump", outer.pid, folder / "image")
    assert "pid namespace that belongs" in engine.refuses("dump", inner[0], folder / "image")
    assert not wait_for_end(inner[0], 0)


# --- mounts -----------------------------------------------------------------------------------------------------------


def test_mounts_that_have_changed_since(ourselves: User, folder: Path, processes: ProcessTracker) -> None:
    """In place the program is run from there: what is seen at its path may be another file by now."""
    engine = Engine(ourselves, folder, processes)
    pid = sleeper(processes, ourselves, folder, "--mount", "true")
    engine.must("dump", pid, folder / "image", "--leave", "running")
    engine.must("restore", folder / "image", "--into", pid)
    entering = ["nsenter", f"--mount=/proc/{pid}/ns/mnt"]
    subprocess.run([*entering, "mount", "-t", "tmpfs", "of-its-own", "/mnt"], check=True)
    told = engine.refuses("restore", folder / "image", "--into", pid)
    assert "something else is mounted at /mnt" in told
    assert "something else is mounted at /mnt" in engine.refuses("dump", pid, folder / "again")
    assert not wait_for_end(pid, 0)


def test_a_user_makes_no_mount_namespace_of_roots(as_user: User, folder: Path, processes: ProcessTracker) -> None:
    as_user.give(folder)
    engine = Engine(as_user, folder, processes)
    pid = sleeper(processes, as_user, folder, "--time", "true")  # a user's own mount namespace is that of the tests
    engine.must("dump", pid, folder / "image", "--leave", "killed")
    processes.reap(pid)
    claim = {"inode": 1, "propagation": [], "owner": -1}

    def change(document: Document) -> None:
        document.update(mount_namespaces=[claim], time_namespaces=[])
        document["processes"][0].update(mount=0, time=-1, time_of_children=-1)

    rewrite(folder / "image", change)
    assert "another mount namespace" in engine.refuses("restore", folder / "image", "--detach")


# --- clocks -----------------------------------------------------------------------------------------------------------

CLOCKS = BY_NAME["timers/namespaces:root"]
AHEAD_S = 10**9


def uptime_s(process: int | str) -> float:
    """CLOCK_BOOTTIME as a process has it."""
    looking = ["nsenter", f"--time=/proc/{process}/ns/time", "cat", "/proc/uptime"]
    return float(subprocess.run(looking, capture_output=True, text=True, check=True).stdout.split()[0])


def test_clocks_go_on_after_another_boot(begin: Begin, ourselves: User, folder: Path) -> None:
    """Not from what this boot's clocks would make of them, but from what they showed."""
    engine, life = begin(CLOCKS, ourselves)
    engine.dump(life.pid, folder / "image", "running")

    def long_ago(document: Document) -> None:
        document["host"]["boot_id"] = "another"
        for entry in document["time_namespaces"]:
            entry["boottime_then_ns"] += AHEAD_S * 10**9

    before = uptime_s(life.pid)
    rewrite(folder / "image", long_ago)
    copy = engine.restore(folder / "image")
    assert -1 < uptime_s(copy) - before - AHEAD_S < 1000
    os.kill(copy, signal.SIGKILL)
    assert wait_for_end(copy, 10)
    life.expect_pass()


def test_clocks_that_cannot_be_set(begin: Begin, ourselves: User, folder: Path) -> None:
    """Before the point of no return: the present goes on."""
    engine, life = begin(CLOCKS, ourselves)
    engine.dump(life.pid, folder / "image", "running")
    rewrite(folder / "image", lambda document: document["time_namespaces"][0].update(monotonic_ns=-(2**62)))
    assert "cannot be set" in engine.refuses("restore", folder / "image", "--into", life.pid)
    life.expect_pass()


def test_clocks_in_place_of_who_has_others(
    begin: Begin, ourselves: User, folder: Path, processes: ProcessTracker
) -> None:
    """Root can move it there and back, so it does."""
    engine, life = begin(CLOCKS, ourselves)
    engine.dump(life.pid, folder / "image", "running")
    with_clocks = uptime_s(life.pid)
    plain = processes.start(["sleep", "600"])
    engine.must("dump", plain.pid, folder / "plain", "--leave", "running")
    engine.must("restore", folder / "image", "--into", plain.pid)
    assert 0 <= uptime_s(plain.pid) - with_clocks < 1000
    engine.must("restore", folder / "plain", "--into", plain.pid)
    assert abs(uptime_s(plain.pid) - uptime_s("self")) < 1
    life.expect_pass()


def test_a_user_gets_no_clocks(as_user: User, folder: Path, processes: ProcessTracker) -> None:
    as_user.give(folder)
    engine = Engine(as_user, folder, processes)
    pid = sleeper(processes, as_user, folder, "--time", "true")
    engine.must("dump", pid, folder / "image", "--leave", "killed")
    processes.reap(pid)
    assert "CAP_SYS_TIME" in engine.refuses("restore", folder / "image", "--detach")


def test_a_users_clocks_by_root(as_user: User, ourselves: User, folder: Path, processes: ProcessTracker) -> None:
    """They may decide what a user is allowed, as names may."""
    as_user.give(folder)
    engine = Engine(ourselves, folder, processes)
    pid = sleeper(processes, in_our_view(as_user), folder, "--time", "true")
    engine.must("dump", pid, folder / "image", "--leave", "killed")
    processes.reap(pid)
    assert "root gives no user" in engine.refuses("restore", folder / "image", "--detach")
    copy = engine.restore(folder / "image", "--trust")
    assert os.stat(f"/proc/{copy}/ns/time").st_ino != os.stat("/proc/self/ns/time").st_ino


# --- namespaces of a whole tree that we go into -----------------------------------------------------------------------

OWN = {"--ipc": BY_NAME["ipc/own_namespace"], "--net": BY_NAME["sockets/own_network"]}


@pytest.mark.parametrize("kind", OWN)
def test_in_place_of_who_lives_in_another_one(
    kind: str, begin: Begin, ourselves: User, folder: Path, processes: ProcessTracker
) -> None:
    engine, life = begin(OWN[kind], ourselves)
    engine.dump(life.pid, folder / "image", "running")
    for argv in (["sleep", "600"], ["unshare", kind, "sleep", "600"]):
        other = processes.start(argv)
        said = engine.refuses("restore", folder / "image", "--into", other.pid)
        assert "lives in another" in said
        assert "than process" in said
        assert not wait_for_end(other.pid, 0)
    life.expect_pass()


@pytest.mark.parametrize("kind", OWN)
def test_only_root_looks_into_one(kind: str, as_user: User, folder: Path, processes: ProcessTracker) -> None:
    as_user.give(folder)
    pid = sleeper(processes, as_user, folder, kind, "true")
    assert "namespace of its own" in Engine(as_user, folder, processes).refuses("dump", pid, folder / "image")
    assert not wait_for_end(pid, 0)


SETTINGS = {
    "--net": ("net/ipv4/ip_local_port_range", "40000 41000", "20000 30000"),
    "--ipc": ("kernel/msgmax", "9999", "7777"),
}
SETTING = SETTINGS["--net"][0]


def setting_of(process: int, kind: str) -> list[str]:
    """A setting of its namespace."""
    looking = ["nsenter", f"{kind}=/proc/{process}/ns/{kind[2:]}", "cat", f"/proc/sys/{SETTINGS[kind][0]}"]
    return subprocess.run(looking, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("kind", OWN)
def test_a_failed_rewind_leaves_it_as_it_is(
    kind: str, ourselves: User, folder: Path, processes: ProcessTracker
) -> None:
    engine, (name, before, changed) = Engine(ourselves, folder, processes), SETTINGS[kind]
    pid = sleeper(processes, ourselves, folder, kind, f"echo {before} >/proc/sys/{name}")
    engine.must("dump", pid, folder / "image", "--leave", "running")
    changing = f"echo {changed} >/proc/sys/{name}"
    subprocess.run(["nsenter", f"{kind}=/proc/{pid}/ns/{kind[2:]}", "sh", "-c", changing], check=True)
    done = engine.run("restore", folder / "image", "--into", pid, fault=f"{Stage.RESTORE_COMMIT}:EIO")
    assert done.status != 0
    assert setting_of(pid, kind) == changed.split()
    engine.must("restore", folder / "image", "--into", pid)
    assert setting_of(pid, kind) == before.split()


# --- failures, and a user's image in root's hands ---------------------------------------------------------------------


def failed_restores(engine: Engine, image: Path) -> Iterator[None]:
    """A restore that fails, then one that is killed, when the namespace has been made; the test looks after each."""
    for fault in ("EIO", "kill"):
        assert engine.run("restore", image, "--detach", fault=f"{Stage.RESTORE_TREE}:{fault}").status != 0
        yield


def mistrusted_and_trusted(engine: Engine, processes: ProcessTracker, image: Path) -> Iterator[tuple[int, str, bool]]:
    """Restored by root, without --trust and with it: the copy's pid, what stderr says, whether it was trusted."""
    for trust in ([], ["--trust"]):
        done = engine.must("restore", image, "--detach", "--json", *trust)
        copy = int(done.document["pid"])
        processes.adopt(copy)
        yield copy, done.err, bool(trust)


# --- network ----------------------------------------------------------------------------------------------------------


def network_of(process: int | str) -> str:
    """The loopback device, its addresses, and a setting, as a process sees them."""
    script = f"cat /proc/net/fib_trie /proc/net/if_inet6 /proc/sys/{SETTING}; cat /proc/net/dev | cut -d: -f1"
    looking = ["nsenter", f"--net=/proc/{process}/ns/net", "sh", "-c", script]
    return subprocess.run(looking, capture_output=True, text=True, check=True).stdout


def test_a_network_is_made_as_it_was_and_nowhere_else(ourselves: User, folder: Path, processes: ProcessTracker) -> None:
    engine, outside = Engine(ourselves, folder, processes), network_of("self")
    pid = sleeper(processes, ourselves, folder, "--net", f"echo 40000 41000 >/proc/sys/{SETTING}; {LOOPBACK}")
    inside = network_of(pid)
    engine.must("dump", pid, folder / "image", "--leave", "killed")
    processes.reap(pid)
    for _ in failed_restores(engine, folder / "image"):
        assert network_of("self") == outside
    assert network_of(engine.restore(folder / "image")) == inside
    assert network_of("self") == outside


def test_settings_of_a_network_are_roots_to_give(
    as_user: User, ourselves: User, folder: Path, processes: ProcessTracker
) -> None:
    as_user.give(folder)
    engine = Engine(ourselves, folder, processes)
    first = f"echo 40000 41000 >/proc/sys/{SETTING}; {LOOPBACK}"
    pid = sleeper(processes, in_our_view(as_user), folder, "--net", first)
    engine.must("dump", pid, folder / "image", "--leave", "killed")
    processes.reap(pid)
    for copy, told, trusted in mistrusted_and_trusted(engine, processes, folder / "image"):
        assert ("40000\t41000" in network_of(copy)) == trusted
        assert ("10.1.2.3" in network_of(copy)) == trusted
        assert ("take --trust" in told) != trusted


# --- IPC --------------------------------------------------------------------------------------------------------------

QUEUE = 5 * 32768 + 12345  # an identifier that nobody else has
MAKE_QUEUE = f"echo {QUEUE} >/proc/sys/kernel/msg_next_id; ipcmk -Q >/dev/null"


def queue_rows(process: int | str) -> list[list[str]]:
    """The System V queues that a process sees: key, identifier, mode, bytes, messages, last sender …"""
    looking = ["nsenter", f"--ipc=/proc/{process}/ns/ipc", "cat", "/proc/sysvipc/msg"]
    told = subprocess.run(looking, capture_output=True, text=True, check=True)
    return [line.split() for line in told.stdout.splitlines()[1:]]


def queues(process: int | str) -> list[str]:
    """Their identifiers."""
    return [row[1] for row in queue_rows(process)]


def test_a_failed_restore_leaves_the_hosts_objects_alone(
    ourselves: User, folder: Path, processes: ProcessTracker
) -> None:
    """The host's queue has the identifier of the image's: what is undone is undone in the namespace that was made."""
    engine = Engine(ourselves, folder, processes)
    subprocess.run(["sh", "-c", MAKE_QUEUE], check=True)
    try:
        pid = sleeper(processes, ourselves, folder, "--ipc", MAKE_QUEUE)
        engine.must("dump", pid, folder / "image", "--leave", "killed")
        processes.reap(pid)
        for _ in failed_restores(engine, folder / "image"):
            time.sleep(0.3)  # a guardian has its work to do
            assert str(QUEUE) in queues("self")
        copy = engine.restore(folder / "image")
        assert queues(copy) == [str(QUEUE)]
        assert str(QUEUE) in queues("self")
    finally:
        subprocess.run(["ipcrm", "-q", str(QUEUE)], check=True)


def test_limits_are_roots_to_raise(as_user: User, ourselves: User, folder: Path, processes: ProcessTracker) -> None:
    """A user's image gets an IPC namespace from root, but not what it says may be in it, unless root trusts it."""
    as_user.give(folder)
    engine = Engine(ourselves, folder, processes)
    pid = sleeper(processes, in_our_view(as_user), folder, "--ipc", "echo 9999 >/proc/sys/kernel/msgmax")
    engine.must("dump", pid, folder / "image", "--leave", "killed")
    processes.reap(pid)
    for copy, told, trusted in mistrusted_and_trusted(engine, processes, folder / "image"):
        looking = ["nsenter", f"--ipc=/proc/{copy}/ns/ipc", "cat", "/proc/sys/kernel/msgmax"]
        found = int(subprocess.run(looking, capture_output=True, text=True, check=True).stdout)
        assert (found == 9999) == trusted
        assert ("kernel/msgmax" in told) != trusted


def test_objects_that_others_use_too(ourselves: User, folder: Path, processes: ProcessTracker) -> None:
    """They are in the namespace, but none of the tree: what they did there nobody could bring back."""
    using = (
        "import ctypes, os, sys, time; libc = ctypes.CDLL(None); libc.unshare(0x8000000); "
        "queue = libc.msgget(0x6e62, 0o1600); others = os.fork(); os.fork() if others else None; "
        "libc.msgsnd(queue, ctypes.c_char_p((1).to_bytes(8, 'little') + b'x'), 1, 0) if not others else None; "
        "time.sleep(600)"
    )
    engine = Engine(ourselves, folder, processes)
    parent = processes.start([sys.executable, "-c", using])
    while len(children := sorted(children_of(parent.pid))) < 2 or not any(r[5] != "0" for r in queue_rows(parent.pid)):
        assert parent.poll() is None
        time.sleep(0.01)
    told = engine.refuses("dump", children[1], folder / "image")
    assert "others use" in told
    assert not wait_for_end(parent.pid, 0)
