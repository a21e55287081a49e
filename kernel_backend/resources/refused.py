"""What cannot be captured, refused by name: the last room to be asked."""

from __future__ import annotations

import socket
import stat

from kernel_backend.errors import ResourceUnsupported
from kernel_backend.image.descriptions import Description
from kernel_backend.resources import live_sockets, socket_options
from kernel_backend.resources.descriptors import CaptureTables, Kind, Look
from kernel_backend.resources.devices import driver_name

_BY_LINK = {
    "anon_inode:[perf_event]": ("a performance counter", "end the profiler"),
    "anon_inode:kvm-vm": ("a virtual machine (KVM)", "shut the virtual machine down"),
    "anon_inode:bpf-map": ("a BPF map", "end the BPF program's user"),
    "anon_inode:bpf-prog": ("a BPF program", "end the BPF program's user"),
    "anon_inode:bpf_link": ("an attached BPF program (a link)", "end the BPF program's user"),
    "anon_inode:bpf-link": ("an attached BPF program (a link)", "end the BPF program's user"),
    "anon_inode:btf": ("type information of BPF programs (BTF)", "end the BPF program's user"),
    "anon_inode:[landlock-ruleset]": ("a Landlock ruleset", "close it"),
    "anon_inode:seccomp notify": ("a seccomp listener", "end the sandbox's supervisor"),
    "anon_inode:[fscontext]": ("a mount in the making", "finish mounting"),
    "anon_inode:dmabuf": ("a DMA buffer of a device (GPU or video)", "free it in the program"),
    "anon_inode:sync_file": ("a fence of a device (GPU)", "free it in the program"),
}  # fmt: skip

_FAMILIES = {
    socket.AF_NETLINK: "netlink", 40: "vsock", 38: "cryptography of the OS kernel",
    31: "Bluetooth", 29: "CAN", 44: "XDP", 15: "PF_KEY", 21: "RDS", 30: "TIPC",
}  # fmt: skip
_PROTOCOLS = {262: "Multipath TCP, in use", 132: "SCTP", 33: "DCCP", 136: "UDP-Lite", 1: "ping", 58: "ping"}


class RefusedKind(Kind):
    """Everything that nobody else claimed."""

    entry = type(None)

    def matches(self, look: Look) -> bool:
        return True

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        what, hint = _describe(look)
        raise ResourceUnsupported(
            f"{look.holder} is {what}, which cannot be captured",
            hint=hint, pid=look.process.pid, fd=look.fd, link=look.link,
        )  # fmt: skip


def _describe(look: Look) -> tuple[str, str]:
    """(what it is, what to do)."""
    close = "close it and checkpoint again"
    mode = look.stat.st_mode
    if look.link in _BY_LINK:
        return _BY_LINK[look.link]
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        driver = driver_name(look.stat)
        return f"the device {look.link}" + (f" (driver {driver})" if driver else ""), "free the device and try again"
    if stat.S_ISSOCK(mode):
        return _describe_socket(look.own)
    if look.link.startswith(("anon_inode:kvm", "anon_inode:bpf")):
        return look.link.removeprefix("anon_inode:"), close
    if look.link.startswith("anon_inode:"):
        return f"an object of the OS kernel called {look.link.removeprefix('anon_inode:').strip('[]')}", close
    return look.link, close


def _describe_socket(fd: int) -> tuple[str, str]:
    family = live_sockets.family_of(fd)
    with socket_options.borrowed(fd, family, socket.SOCK_STREAM) as s:
        kind = s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        protocol = s.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)
    name = _FAMILIES.get(family, f"address family {family}")
    if family in (socket.AF_INET, socket.AF_INET6):
        name = "raw" if kind == socket.SOCK_RAW else _PROTOCOLS.get(protocol, f"protocol {protocol}")
    return f"a socket of a sort that cannot be rebuilt ({name})", "close it and checkpoint again"


KINDS: list[Kind] = [RefusedKind()]
