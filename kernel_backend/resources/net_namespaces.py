"""A network namespace of a tree's own (network_namespaces(7)) that leads to nowhere: a sandbox without network.

It comes back with its loopback device, that one's addresses, and all settings below /proc/sys/net. Sockets are made
in it as elsewhere. A namespace that leads to somewhere (other devices, routes), or decides where packets go (rules,
packet filters, queueing), is refused by name: the other end of its cables is not ours to make.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kernel_backend.errors import ResourceUnsupported
from kernel_backend.host import netlink, proc
from kernel_backend.host.netlink import LinkAddress
from kernel_backend.image.entries import Inventory, NetAddress, NetEntry
from kernel_backend.resources import visits
from kernel_backend.resources.visits import Visit
from kernel_backend.tracee.process import Process

_SYS = Path("/proc/sys")
_OF_THE_HOST = _SYS / "net/core/netdev_max_backlog"  # seen in the one only that the host began with
_LOOPBACK = 1  # LOOPBACK_IFINDEX
# Some modules of the OS kernel put one of these into each namespace; it does nothing until somebody sets it up.
_UNBIDDEN = frozenset(
    "erspan0 gre0 gretap0 ip6_vti0 ip6gre0 ip6tnl0 ip_vti0 sit0 teql0 tunl0".split()
)  # fmt: skip
_NO_QUEUES = ("noqueue", "noop", "")
_READ_AND_WRITTEN = stat.S_IRUSR | stat.S_IWUSR
_OLD_FILTERS = ("ip_tables_names", "ip6_tables_names", "arp_tables_names")


# --- dump -------------------------------------------------------------------------------------------------------------


def capture(root: Process, visit: Visit) -> NetEntry | None:
    """Go into the tree's namespace, where that is another one than ours. Its settings come later: `add_settings`."""
    number = visits.go_to_tree("net", root, visit)
    if not number:
        return None
    links = {link.index: link for link in netlink.links()}
    what = [f"the network device {link.name}" for link in links.values() if not _is_expected(link)]
    if netlink.makers_of_routes() - {netlink.BY_KERNEL}:
        what.append("routes of its own")
    if netlink.makers_of_rules() - {netlink.BY_KERNEL}:
        what.append("routing rules of its own")
    if links[_LOOPBACK].queues not in _NO_QUEUES:
        what.append(f"a queueing discipline ({links[_LOOPBACK].queues})")
    what += [f"a packet filter ({name})" for name in [*netlink.packet_filters(), *_old_filters()]]
    if what:
        raise ResourceUnsupported(
            f"process {root.pid} lives in a network namespace of its own with {what[0]}",
            hint="run nbcr inside that namespace (nsenter --net)", pid=root.pid,
        )  # fmt: skip
    addresses = [
        NetAddress(family=a.family, prefix=a.prefix, scope=a.scope, address=a.address, label=a.label)
        for a in netlink.addresses()
    ]
    loopback = links[_LOOPBACK]
    return NetEntry(inode=number, is_up=bool(loopback.flags & netlink.UP), mtu=loopback.mtu, addresses=addresses)


def _is_expected(link: netlink.Link) -> bool:
    return link.index == _LOOPBACK or (link.name in _UNBIDDEN and not link.flags & netlink.UP)


def _old_filters() -> Iterator[str]:
    """Tables of iptables as it was before nftables."""
    for name in _OLD_FILTERS:
        with suppress(FileNotFoundError):
            yield from Path(f"/proc/thread-self/net/{name}").read_text().split()


def add_settings(entry: NetEntry) -> None:
    """Note the settings of the namespace that we are in; reading them takes too long for a pause."""
    entry.settings = dict(_settings())


def _settings() -> Iterator[tuple[str, str]]:
    """Those that can be set, by their names below /proc/sys."""
    for folder, _, files in os.walk(_SYS / "net"):
        for path in (Path(folder, file) for file in files):
            with suppress(OSError):  # some have no value until they are given one
                if path.stat().st_mode & _READ_AND_WRITTEN == _READ_AND_WRITTEN:
                    text = path.read_text().strip()
                    if text.replace("\t", " ").isprintable():
                        yield str(path.relative_to(_SYS)), text


# --- restore ----------------------------------------------------------------------------------------------------------


def check(inventory: Inventory, present: Process | None, *, same_boot: bool) -> None:
    """Raise unless the tree can have its namespace; `present` is the process that is replaced, None for none."""
    wanted = inventory.net_namespace.inode if inventory.net_namespace is not None else 0
    visits.check("net", wanted, inventory.root_pid, present, same_boot=same_boot)


def enter(inventory: Inventory, present: Process | None, visit: Visit, *, for_a_user: bool) -> list[str]:
    """Be in the tree's namespace, where that is another one than ours; a new one is as the image tells. Warnings."""
    wanted = inventory.net_namespace
    if wanted is None:
        return []
    if present is None:
        visit.begin("net")
        if for_a_user and wanted.is_up:
            netlink.set_up(_LOOPBACK, wanted.mtu)
        return _arrange(wanted, for_a_user=for_a_user)
    if visits.identity("net", present.view) != visits.here("net"):
        visit.join("net", proc.view(present.pid))
    return []


def rewind(inventory: Inventory, visit: Visit, *, for_a_user: bool) -> list[str]:
    """In place, when there is no way back: have the namespace as the image tells, if it is the tree's; warnings."""
    wanted = inventory.net_namespace
    if wanted is None or not visit.is_away("net") or _OF_THE_HOST.exists():
        return []
    try:
        return _arrange(wanted, for_a_user=for_a_user)
    except OSError as error:
        return [f"addresses of the network namespace stay as they are: {error.strerror}"]


def _arrange(wanted: NetEntry, *, for_a_user: bool) -> list[str]:
    if for_a_user:  # who may have been given less than what an image of theirs tells
        return ["settings and addresses in the network namespace are not the image's: a user's take --trust"]
    _apply(wanted.settings)
    netlink.set_up(_LOOPBACK, wanted.mtu, is_up=wanted.is_up)
    _give_addresses(wanted.addresses)
    _apply(wanted.settings)  # some set others, or a device that is set up
    now = dict(_settings())
    return [
        f"the network setting {name} is {now.get(name, 'not there')!r}; it was {value!r}"
        for name, value in wanted.settings.items()
        if now.get(name) != value
    ]


def _apply(settings: dict[str, str]) -> None:
    now = dict(_settings())
    for name, value in settings.items():
        if name in now and now[name] != value:
            with suppress(OSError):  # what cannot be set is told at the end
                (_SYS / name).write_text(value)


def _give_addresses(wanted: list[NetAddress]) -> None:
    addresses = [LinkAddress(a.family, a.prefix, a.scope, a.address, a.label, _LOOPBACK) for a in wanted]
    present = netlink.addresses()
    for address in present:
        if address not in addresses:
            netlink.remove_address(address)
    for address in addresses:
        if address not in present:
            netlink.add_address(address)
