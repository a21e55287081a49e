"""Images that are damaged or made up, read for a bounded time: each is refused by an error of ours, or is valid.

Bytes are changed (the envelope's digest finds that, but the reader must not stumble), and what an inventory says is
changed under a fresh digest, by types: every field gets what its neighbours never have.
"""

from __future__ import annotations

import copy
import json
import os
import random
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel_backend.errors import EngineError, ImageCorrupt, ImageMissing, ImageVersion
from kernel_backend.image import reader
from kernel_backend.image.entries import Inventory
from tests.integration.engine.harness import Engine, Life
from tests.subjects.catalogue import BY_NAME
from tests.support import User, tracked_processes

BOUND_S = 5.0
LATE_S = 10.0  # for one reading of some 100 KiB, on a busy host
REFUSED = (ImageCorrupt, ImageMissing, ImageVersion)
SEEDS = [
    "memory/memfd",
    "sockets/in_flight",
    "terminals/session",
    "sockets/udp_more",
    "ipc/posix_mq",
    "io_uring/completions",
]


@pytest.fixture(scope="module")
def inventories(ourselves: User, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What real images say, of many kinds."""
    found = []
    for name in SEEDS:
        folder = tmp_path_factory.mktemp("seed")
        with tracked_processes() as processes:
            engine = Engine(ourselves, folder, processes)
            life = Life(BY_NAME[name], ourselves, folder, processes).start()
            engine.must("dump", life.pid, folder / "image", "--leave", "running")
            life.expect_pass()
            life.close()
        found.append(msgspec.json.decode((folder / "image" / reader.INVENTORY).read_bytes(), type=dict)["inventory"])
    return [msgspec.json.encode(one) for one in found]


@pytest.fixture(scope="module", autouse=True)
def little_memory() -> Iterator[None]:
    """A huge allocation is a MemoryError here."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def read(folder: Path, content: bytes) -> Inventory | EngineError:
    """Read an image of these bytes: an inventory or an error of ours, soon."""
    (folder / reader.INVENTORY).write_bytes(content)
    begun = time.monotonic()
    try:
        return reader.read_inventory(folder)
    except REFUSED as error:
        return error
    finally:
        assert time.monotonic() - begun < LATE_S


def sealed(inventory: bytes) -> bytes:
    return b'{"blake3":"%s","inventory":%s}' % (blake3(inventory).hexdigest().encode(), inventory)


# --- what stands there is changed ------------------------------------------------------------------------------------

NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    4,
    64,
    255,
    4095,
    4096,
    65535,
    2**16,
    2**22,
    2**31 - 1,
    2**31,
    2**32,
    2**47,
    2**63 - 1,
    2**63,
]
NUMBERS += [2**64 - 1, 2**64, 10**400, os.getpid(), -(2**63), 1 << 20]
TEXTS = [
    "",
    "/",
    "..",
    "/..",
    "/etc/shadow",
    "/proc/1/root/etc",
    "/proc/self/mem",
    "a/b",
    "\0",
    "\x00zz",
    "\x002f",
    "x" * 9000,
]
TEXTS += [
    "pages-1.img",
    "../../etc/shadow",
    "content-1.img",
    "outside",
    "inside",
    "anon",
    "sysv",
    "\ud7ff",
    "localhost",
]
OTHERS: list[Any] = [None, True, False, [], {}, [[]], 1.5, 1e308, [0] * 1000, {"kind": "tty"}, {"kind": "epoll"}]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def change(document: Any, rng: random.Random) -> None:
    """One change somewhere: of a value, of a list's length, of which fields there are."""
    path = rng.choice(list(places(document))[1:])
    parent, key = at(document, path[:-1]), path[-1]
    old = parent[key]
    match rng.randrange(8):
        case 0 | 1 if isinstance(old, int):
            parent[key] = rng.choice([*NUMBERS, old + 1, old - 1, old ^ 1 << rng.randrange(40), -old])
        case 0 | 1 | 2 if isinstance(old, str):
            parent[key] = rng.choice([*TEXTS, old + "\0", old[1:], old + old, old.upper()])
        case 3 if isinstance(parent, list):
            parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(old))
        case 4:
            del parent[key]
        case 5 if isinstance(parent, dict):
            parent[str(key) + "x"] = copy.deepcopy(old)  # the same object twice may come to hold itself
        case 6 if isinstance(parent, list):
            rng.shuffle(parent)
        case _:
            parent[key] = copy.deepcopy(rng.choice([*NUMBERS, *TEXTS, *OTHERS]))


def test_what_an_inventory_says_is_changed(inventories: list[bytes], tmp_path: Path, rng: random.Random) -> None:
    documents = [json.loads(one) for one in inventories]
    until = time.monotonic() + BOUND_S
    refused = taken = 0
    while time.monotonic() < until:
        document = copy.deepcopy(rng.choice(documents))
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            change(document, rng)
        said = json.dumps(document).encode()
        outcome = read(tmp_path, sealed(said))
        refused, taken = refused + isinstance(outcome, EngineError), taken + isinstance(outcome, Inventory)
    assert refused > 50
    assert taken  # a change may be harmless: of a time, say


def test_bytes_are_changed(inventories: list[bytes], tmp_path: Path, rng: random.Random) -> None:
    """Under a fresh digest and under the old one."""
    until = time.monotonic() + BOUND_S / 2
    while time.monotonic() < until:
        said = bytearray(rng.choice(inventories))
        for _ in range(rng.choice((1, 3, 30))):
            where = rng.randrange(len(said))
            match rng.randrange(4):
                case 0:
                    said[where] = rng.randrange(256)
                case 1:
                    del said[where : where + rng.randrange(20)]
                case 2:
                    said[where:where] = rng.randbytes(rng.randrange(20))
                case _:
                    said[where:where] = rng.choice(
                        (b"[" * 5000, b'{"a":' * 3000, b"9" * 5000, b'"\\ud800"', b"\xff\xfe")
                    )
        assert isinstance(read(tmp_path, bytes(said)), EngineError)
        read(tmp_path, sealed(bytes(said)))


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode), st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=9), inner, max_size=4)),
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_anything_at_all(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "anything"
    folder.mkdir(exist_ok=True)
    assert isinstance(read(folder, content), EngineError)
    assert isinstance(read(folder, sealed(content)), EngineError)


# --- what stands in place of files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["link", "FIFO", "folder", "device", "huge file", "socket"])
def test_no_inventory_but_something_else(what: str, tmp_path: Path) -> None:
    path = tmp_path / reader.INVENTORY
    if what == "link":
        path.symlink_to("/etc/passwd")
    elif what == "FIFO":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "huge file":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        subprocess.run(["python3", "-c", "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])", path])
    with pytest.raises((ImageCorrupt, ImageMissing)):
        reader.read_inventory(tmp_path)
