"""What docs/resources.md says of a kind besides what the catalogue tells: how it changes, what an ordinary user loses.

A kind needs no note to be in the table. One that is in no row of the catalogue is an error.
"""

from __future__ import annotations

from typing import NamedTuple


class Note(NamedTuple):
    """A sentence each, without a full stop; empty: there is nothing to say."""

    partly: str = ""  # what does not come back, or not as it was
    user: str = ""  # what somebody without capabilities has to do without


_PIDS = "a fresh tree has its pids in a pid namespace of its own, or new ones; in place, children have new ones"
_TIDS = "in place, threads have new ids where the old ones are not free"

NOTES: dict[str, Note] = {
    "interrupted system calls": Note("where the OS kernel gives no other choice they return EINTR, or a smaller count"),
    "clocks": Note(
        "the host's: monotonic time goes on, timers keep what was left of them; a fresh process has used no processor "
        "time yet, and of a dead child nobody knows how much it had used"
    ),
    "POSIX timers": Note("how often one has run out while its signal waits (timer_getoverrun) is counted anew"),
    "threads": Note("", _TIDS),
    "children with threads": Note("", _PIDS),
    "scheduling, affinity": Note("", "real-time and deadline policies, as far as RLIMIT_RTPRIO does not allow them"),
    "droppable memory": Note("comes back empty, as it may be at any time"),
    "mapped files": Note("pages that nobody wrote to come from the file, which has to be the same one"),
    "madvise, mlock": Note("", "what is locked beyond RLIMIT_MEMLOCK comes back unlocked, with a warning"),
    "Multipath TCP": Note("sockets that have no address and no connection yet; others are refused"),
    "system call user dispatch": Note(
        "while a thread is in code whose calls it takes, a dump is refused: it can be tried again (Linux 6.4 or later)"
    ),
    "login user of the audit log": Note("", "where somebody else has logged in, a warning says so"),
    "control groups": Note(
        "a tree is in those of who restores it; members that were in others than its root, and threads in others "
        "than their process, are put back, or told"
    ),
    "seccomp filters": Note(
        "filters that ask a supervisor, and threads with other filters than their process, are refused",
        "refused, also where root can take the checkpoint",
    ),
    "host and domain names (UTS namespaces)": Note(
        "what processes outside the tree share with it, a fresh tree shares no more; in place, only the process that "
        "lives where the image's root did is replaced",
        "refused, unless it is in place, and no process of the tree is elsewhere",
    ),
    "mount namespaces": Note(
        "those in which the same is mounted as outside, with what mounts tell each other; one in which something else "
        "is mounted is refused; in place, only a process that lives in the same one as the image's root is replaced",
        "only those that belong to a user namespace of the program's own",
    ),
    "users of their own (user namespaces)": Note(
        "one below another is refused, and so is one with a network, IPC or pid namespace beside it; those for host "
        "names, clocks and mounts come back with it; in place, only a process that lives in the same one as the "
        "image's root is replaced",
        "one with other users than oneself takes root; in place, threads have new ids",
    ),
    "clocks of their own (time namespaces)": Note(
        "what processes outside the tree share with it, a fresh tree shares no more; after a reboot such clocks go on "
        "from where they were; one that nobody of the tree is in yet is refused",
        "refused",
    ),
    "root folder": Note(
        "", "in place, whatever has another root folder; what is put into one by root comes back fresh"
    ),
    "asynchronous I/O (io_setup)": Note("requests that are in flight nobody can see: a warning says so"),
    "io_uring": Note(
        "while nothing is in flight; IORING_SETUP_SUBMIT_ALL, COOP_TASKRUN with TASKRUN_FLAG and limits of workers "
        "nobody can read, nor registered credentials (IORING_REGISTER_PERSONALITY), tags of files and buffers, another "
        "clock (IORING_REGISTER_CLOCK), nor groups of provided buffers from number 64 on: it comes back without"
    ),
    "regular files": Note(
        "what is in them stays as it is now; where one is too short for the offset, a warning says so"
    ),
    "deleted files": Note(
        "", "what was written to one that this user may not read; in a fresh tree one cannot be given a name (linkat)"
    ),
    "zombies, stopped and adopted children": Note(
        "of one that left a core its parent is told that it did not, with a warning"
    ),
    "signals between processes": Note("", "in place, a child's end is told by SIGCHLD"),
    "NUMA policies": Note("which node a range prefers among its nodes (set_mempolicy_home_node) nobody can read"),
    "socketpairs": Note(
        "where urgent bytes (MSG_OOB) stood that have been read is forgotten; "
        "SO_PEERPIDFD is of nobody; of messages without data that somebody has looked at already (MSG_PEEK) only a "
        "first one comes back",
        "credentials of what waits (SCM_CREDENTIALS) name who restored it, with a warning",
    ),
    "netlink sockets": Note("what waits to be received is left out, with a warning"),
    "raw and ping sockets": Note("what waits to be received is left out, with a warning"),
    "UDP-Lite": Note("what waits to be received is left out, with a warning"),
    "packet sockets": Note(
        "frames that wait are left out, and one whose network device is not there hears nothing, with a warning; they "
        "are counted anew (PACKET_STATISTICS)"
    ),
    "BPF maps": Note(
        "another id; hashes list their keys in another order, LRU hashes forget which were used last", "refused"
    ),
    "packet filters of sockets": Note("those in eBPF are refused"),
    "epoll": Note("what EPOLLONESHOT has switched off tells of errors and hang-ups again"),
    "named and abstract Unix sockets": Note(
        "in place, new connections in place of those that the present has no more name who restored them (SO_PEERCRED)"
    ),
    "pseudo-terminals": Note(
        "what waits in one whose program's side is open outside only is left out where it runs on, with a warning; "
        "so is what packet mode (TIOCPKT) had to tell"
    ),
    "controlling terminals": Note("one that no descriptor leads to any more is lost, with a warning"),
    "inotify": Note(
        "watches whose path cannot be found and events that were not read are left out, with a warning; a new watch "
        "may get a number that one which is gone had",
        "paths are searched for where the program has files open (CAP_DAC_READ_SEARCH finds any)",
    ),
    "fanotify": Note(
        "marks whose path cannot be found and events that were not read are left out, with a warning; groups that "
        "decide who may open files (FAN_OPEN_PERM …) are refused",
        "paths are searched for where the program has files open (CAP_DAC_READ_SEARCH finds any)",
    ),
    "userfaultfd": Note("what the program has read of, but not served yet, is told again"),
    "pipes": Note("ends to outside are at their end, or the present's in the same spot", "sizes above pipe-max-size"),
    "socket options": Note(
        "what nobody can read back is lost: SO_INQ, TCP_MD5SIG keys, SO_ATTACH_REUSEPORT_CBPF and _EBPF programs; "
        "send timestamps are counted anew (SOF_TIMESTAMPING_OPT_ID), with a warning",
        "buffers above rmem_max and wmem_max",
    ),
    "TCP inside": Note(
        "a client that TCP_DEFER_ACCEPT holds back until it sends can be accepted at once; error queues "
        "(MSG_ERRQUEUE) are left out, with a warning",
        "bytes that did not fit into the receiver's buffer: that connection is reset",
    ),
    "TCP to outside (`--tcp keep`)": Note(
        "with a warning they are reset where the addresses cannot be had, urgent data waits, or a process that is not "
        "of the tree has them, too: engine.md",
        "refused: they are reset without it",
    ),
    "TCP to outside (reset)": Note("they find their connection reset"),
    "UDP": Note(
        "datagrams of senders that cannot be imitated are dropped, with a warning; where an error waits, it is lost, "
        "and so is what waits behind it where the program runs on, with a warning"
    ),
    "pidfd": Note("", _PIDS + "; those of reaped processes then say that they were killed"),
    "resource limits": Note("", "hard limits above those of the restoring process"),
    "nice and I/O priority": Note(
        "", "a nice value below, or the real-time class of I/O, as far as limits forbid them"
    ),
    "no_new_privs, personality, oom_score_adj": Note("", "a lower oom_score_adj than the restoring process has"),
    "credentials": Note("", "only one's own can be had"),
    "capabilities": Note("", "only to be dropped"),
    "pid, session, group": Note("", _PIDS),
    "children": Note("", _PIDS),
    "System V IPC": Note(
        "shared memory that is attached; semaphores and message queues are nobody's own and stay as they are now",
        "a segment that is gone gets a new identifier",
    ),
    "network namespaces": Note(
        "of a whole tree, with nothing but a loopback device, its addresses and all settings; one with other devices, "
        "routes, rules or packet filters is refused, and so is one of a part of a tree; what processes outside share "
        "with it, a fresh tree shares no more",
        "refused",
    ),
    "IPC namespaces": Note(
        "of a whole tree, with all that is in it; one of a part of a tree is refused; what processes outside share "
        "with it, a fresh tree shares no more",
        "refused",
    ),
    "a user's keyring": Note("it stays as it is now"),
    "POSIX message queues": Note(
        "messages of a queue that processes outside use too are left alone; a notification by signal has lost its "
        "value",
        "queues larger than RLIMIT_MSGQUEUE allows",
    ),
}

# Programs that tests/integration/engine/test_foreign.py leads through dump, death and restore
PROGRAMS = {
    "CPython": "captured: the one that runs the tests, and each of 3.11 and newer that the host has",
    "Node.js": "captured, with its worker threads and timers",
    "Java": "captured, with its compiler and collector threads; one that has ended by itself since (after "
    "`--leave running`) has removed the file of statistics that it maps (`/tmp/hsperfdata_USER/PID`): start it with "
    "`-XX:-UsePerfData`, and it has none",
}
