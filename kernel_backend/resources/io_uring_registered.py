"""Files, buffers, polling, registered with an io_uring instance (io_uring_register(2)), both directions.

The OS kernel lists both by /proc/PID/fdinfo. Buffers it tells exactly, but for tags; they are of the memory of whoever
has registered them, so nobody else may have the instance. Of files it tells what they are called: the socket of that
number, or the file of that path, that the process has open. What is called alike (two descriptions of one file, both
ends of a pipe), or what the process has closed since, cannot be told, and is refused.

Of credentials (IORING_REGISTER_PERSONALITY; early OS kernels list them), another clock for timeouts
(IORING_REGISTER_CLOCK) and tags of files and buffers (struct io_uring_rsrc_register) nothing shows, without a change
to the instance.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence

from kernel_backend.abi import linux
from kernel_backend.errors import ResourceUnsupported
from kernel_backend.image import io_uring as bounds
from kernel_backend.image.descriptions import IoUring, RegisteredBuffer
from kernel_backend.resources.descriptors import CaptureTables, Look
from kernel_backend.tracee.inject import Workshop
from kernel_backend.tracee.process import Process

_LISTED = re.compile(r"\s*(\d+): (.*)")
_BUFFER = re.compile(r"0x([0-9a-f]+)/(\d+)")
_ESCAPED = re.compile(r"\\(\d{3})")
_NONE = "<none>"
_NAPI_NS, _NAPI_US = "napi_busy_poll_dt", "napi_busy_poll_to"  # the second one before OS kernel 6.11
_UNREGISTER = "have the program unregister them and checkpoint again"
_OF_ONE_NAME = ("/", "socket:[")


def refusal(look: Look, why: str, hint: str = "") -> ResourceUnsupported:
    """What about an instance keeps it from being captured."""
    return ResourceUnsupported(
        f"{look.holder} is an io_uring instance {why}, which cannot be captured",
        hint=hint or "end its user, or make the program use epoll", pid=look.process.pid, fd=look.fd,
    )  # fmt: skip


# --- out --------------------------------------------------------------------------------------------------------------


def note_files(
    look: Look, entry: IoUring, count: int, lines: Sequence[str], user: Process, tables: CaptureTables
) -> None:
    """The table of registered files, of which those that are there are listed; `user` is to register them again."""
    if count > bounds.MOST_FILES:
        raise refusal(look, f"with {count} registered files", _UNREGISTER)
    entry.files = [-1] * count
    for line in lines:
        if (found := _LISTED.fullmatch(line)) and found[2] != _NONE:
            name = _ESCAPED.sub(lambda code: chr(int(code[1], 8)), found[2])
            entry.files[int(found[1])] = _description(look, name, user, tables)


def _description(look: Look, name: str, user: Process, tables: CaptureTables) -> int:
    alike = [index for index, other in enumerate(tables.looks) if other.link == name]
    its_own = {row.description for row in tables.tables[user.pid]}
    if len(alike) != 1 or alike[0] not in its_own or not name.startswith(_OF_ONE_NAME):
        raise refusal(look, f"with registered files, of which one cannot be told from others ({name})", _UNREGISTER)
    return alike[0]


def note_buffers(look: Look, entry: IoUring, lines: Sequence[str], holders: Sequence[Process]) -> None:
    """Registered buffers, in the memory of the only process that has the instance."""
    found = [_BUFFER.search(line) for line in lines]
    if len(lines) > bounds.MOST_BUFFERS or (lines and len(holders) > 1):
        raise refusal(look, "with registered buffers, which several processes have", _UNREGISTER)
    entry.buffers = [
        RegisteredBuffer(address=int(one[1], 16), size=int(one[2])) if one else RegisteredBuffer(address=0, size=0)
        for one in found
    ]
    for buffer in entry.buffers:
        if not _is_there(buffer, holders[0]):
            raise refusal(
                look, f"with a registered buffer at {buffer.address:#x}, which is not there any more", _UNREGISTER
            )


def _is_there(buffer: RegisteredBuffer, process: Process) -> bool:
    at, end = buffer.address, buffer.address + buffer.size
    for mapping in process.mappings:
        if mapping.start <= at < mapping.end and mapping.perms.startswith("rw"):
            at = min(mapping.end, end)
    return at == end


def note_polling(look: Look, entry: IoUring, words: Mapping[str, str]) -> None:
    """Whether it polls network devices instead of waiting for an interrupt (IORING_REGISTER_NAPI; io_uring/fdinfo.c).

    Which devices that are it finds out by itself (`dynamic`), or it was told (`static`), by numbers that nobody reads.
    """
    if words.get("NAPI", "disabled") == "disabled":
        return
    if words.get("napi tracking", "dynamic") != "dynamic":
        raise refusal(
            look, "that polls network devices which its program has named (IORING_REGISTER_NAPI)", _UNREGISTER
        )
    entry.napi_us = int(words[_NAPI_NS]) // 1000 if _NAPI_NS in words else int(words.get(_NAPI_US, "0"))
    entry.napi_prefers = words.get("napi_prefer_busy_poll") == "true"


# --- coming back ------------------------------------------------------------------------------------------------------


def register(entry: IoUring, shop: Workshop, fd: int, numbers: dict[int, int]) -> list[str]:
    """Register them again; `numbers`: a descriptor of the process for each description that it has. What failed."""
    files = [numbers[index] if index >= 0 else -1 for index in entry.files]
    buffers = [struct.pack("<QQ", buffer.address, buffer.size) for buffer in entry.buffers]
    polling = struct.pack("<IB11x", max(entry.napi_us, 0), entry.napi_prefers)  # struct io_uring_napi
    failed = []
    for what, opcode, count, table in (
        ("files", linux.IORING_REGISTER_FILES, len(files), struct.pack(f"<{len(files)}i", *files)),
        ("buffers", linux.IORING_REGISTER_BUFFERS, len(buffers), b"".join(buffers)),
        ("polls of network devices", linux.IORING_REGISTER_NAPI, int(entry.napi_us >= 0), polling),
    ):
        try:
            if count:
                shop.call("io_uring_register", fd, opcode, shop.put(table), count)
        except OSError as error:  # memory is locked by it, as far as RLIMIT_MEMLOCK allows
            failed.append(f"{count} {what} are not registered with an io_uring instance again: {error.strerror}")
    return failed
