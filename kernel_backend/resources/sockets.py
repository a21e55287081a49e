"""All sockets that can be captured. Other families are refused by name (refused.py)."""

from __future__ import annotations

from kernel_backend.resources import sockets_packet, sockets_plain, sockets_tcp, sockets_udp, sockets_unix
from kernel_backend.resources.descriptors import Kind

KINDS: list[Kind] = [
    *sockets_unix.KINDS,
    *sockets_tcp.KINDS,
    *sockets_udp.KINDS,
    *sockets_plain.KINDS,
    *sockets_packet.KINDS,
]
