"""An asyncio program: each rank's event loop runs all the time, and sends and receives by requests that it tests; the
tags that came are counted in memory that is shared. Prints one digest of all that came.

    python looping.py STEPS [PAUSE_S]
"""

import asyncio
import hashlib
import mmap
import random
import sys

from mpi4py import MPI

STEPS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
KINDS = 5

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
shared = mmap.mmap(-1, 4 << 20)
shared[:] = random.Random(rank).randbytes(len(shared))
after, before = (rank + 1) % size, (rank - 1) % size


async def ended(request):
    while not (found := request.test())[0]:
        await asyncio.sleep(0)
    return found[1]


async def send(step, tag):
    await ended(comm.isend((rank, step, tag, b"z" * (tag * 20_000)), after, tag))


async def receive(tag):
    await asyncio.sleep(PAUSE_S * tag / KINDS)
    return await ended(comm.irecv(1 << 20, before, tag))


async def main():
    digest = hashlib.sha256()
    for step in range(STEPS):
        came = await asyncio.gather(*(receive(tag) for tag in range(KINDS)), *(send(step, tag) for tag in range(KINDS)))
        for tag, message in enumerate(came[:KINDS]):
            assert message == (before, step, tag, b"z" * (tag * 20_000))
            shared[(step * KINDS + tag) % len(shared)] = 1 + tag
        digest.update(repr([message[:3] for message in came[:KINDS]]).encode())
    assert shared[: STEPS * KINDS] == bytes(1 + tag for tag in range(KINDS)) * STEPS
    return digest.hexdigest()


if rank == 0:
    print("ready", flush=True)
for line in comm.gather(asyncio.run(main()), 0) or ():
    print(line)
if rank == 0:
    print("done", flush=True)
