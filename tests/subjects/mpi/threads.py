"""Threads that call MPI all at once: a ring and a poll over one communicator by different tags, collectives over
communicators of each thread, pickles from anybody, communicators that come and go, probes. Prints one digest for each
rank.

    python threads.py STEPS [PAUSE_S]
"""

import hashlib
import os
import sys
import threading
import time
import traceback

import numpy as np
from mpi4py import MPI

STEPS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0

world = MPI.COMM_WORLD
rank, size = world.rank, world.size
after, before = (rank + 1) % size, (rank - 1) % size
assert MPI.Query_thread() == MPI.THREAD_MULTIPLE


def ring(comm, step):
    given, room = np.full(2000, rank + step * 1000.0), np.empty(2000)
    comm.Sendrecv(given, after, 1, room, before, 1)
    assert (room == before + step * 1000.0).all(), (rank, step, room[0])
    return room


def polling(comm, step):
    """Over the same communicator as `ring`."""
    length = (step % 5) * 20_000 + 1
    room = np.zeros(length)
    coming, going = comm.Irecv(room, before, 2), comm.Isend(np.full(length, step + rank / 16), after, 2)
    turns = 0
    while not MPI.Request.Testall([coming, going]):
        turns += 1
        time.sleep(0.0005)
    assert (room == step + before / 16).all(), (rank, step)
    return room[:1]


def summing(comm, step):
    total = np.zeros(50)
    comm.Allreduce(np.full(50, rank + step * 1.0), total)
    assert total[0] == sum(range(size)) + size * step, (rank, step, total[0])
    return total


def broadcasting(comm, step):
    root = step % size
    text = comm.bcast({"step": step, "words": ["w"] * step} if rank == root else None, root)
    assert text == {"step": step, "words": ["w"] * step}, (rank, step)
    late = np.full(30, step * 1.0) if rank == root else np.zeros(30)
    request = comm.Ibcast(late, root)
    comm.Barrier()
    request.Wait()
    assert (late == step).all(), (rank, step)
    return late


def asking(comm, step):
    """Everybody sends to everybody, who takes it from anybody."""
    requests = [comm.isend((rank, peer, step), peer, step % 100) for peer in range(size)]
    came = sorted(comm.recv(source=MPI.ANY_SOURCE, tag=step % 100) for _ in range(size))
    assert came == [(peer, rank, step) for peer in range(size)], (rank, step, came)
    MPI.Request.waitall(requests)
    return np.array([len(came)])


def probing(comm, step):
    request = comm.isend(b"x" * (step * 100), after, 5)
    message = comm.mprobe(before, 5)
    assert message.recv() == b"x" * (step * 100), (rank, step)
    request.wait()
    return np.array([step])


def splitting(comm, step):
    new = comm.Split((rank + step) % 2, -rank)
    everybody = new.allgather((rank, step))
    assert everybody == [(peer, step) for peer in reversed(range(size)) if (peer + step) % 2 == (rank + step) % 2]
    new.Free()
    return np.array([len(everybody)])


digests = {}


def work(call, comm):
    digest = hashlib.sha256()
    try:
        for step in range(STEPS):
            digest.update(call(comm, step).tobytes())
            if PAUSE_S and (step + len(call.__name__) + rank) % 3 == 0:
                time.sleep(PAUSE_S)
    except BaseException:
        traceback.print_exc()
        os._exit(3)
    digests[call.__name__] = digest.hexdigest()


own = {call: world.Dup() for call in (summing, broadcasting, asking, probing, splitting)}
threads = [threading.Thread(target=work, args=(call, own.get(call, world))) for call in (ring, polling, *own)]
if rank == 0:
    print("ready", flush=True)
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for line in world.gather(" ".join(digests[name][:16] for name in sorted(digests))) or ():
    print(line)
if rank == 0:
    print("done", flush=True)
