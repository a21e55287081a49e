"""RMA: fences, exclusive and shared locks, locks of all, requests, memory of the program's and of MPI's. Each step's
values are known. Prints one digest for each rank.

python windows.py STEPS [PAUSE_S]
"""

import hashlib
import os
import sys
import time
from array import array

os.environ["UCX_LOG_LEVEL"] = "error"  # it warns of windows on standard output, in words that differ

from mpi4py import MPI

STEPS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
right = (rank + 1) % size
digest = hashlib.sha256()

mine = array("d", [0.0] * 4)
fenced = MPI.Win.Create(mine, 8, MPI.INFO_NULL, comm)
fenced.Set_name("fenced")
fenced.Fence()
counter = MPI.Win.Allocate(8 * 2 if rank == 0 else 0, 8, MPI.INFO_NULL, comm)
board = MPI.Win.Allocate(8 * size, 8, MPI.INFO_NULL, comm)
seen = memoryview(board.tomemory()).cast("q")
for window in (counter, board):
    memory = window.tomemory()
    memory[:] = bytes(len(memory))
board.Lock_all()
half = comm.Split(rank % 2, rank)
some = MPI.Win.Create(array("q", [0]), 8, MPI.INFO_NULL, half)
keyval = MPI.Win.Create_keyval()
some.Set_attr(keyval, ["kept"])
comm.Barrier()

if rank == 0:
    print("ready", flush=True)
drawn = []
for step in range(STEPS):
    # a fence
    fenced.Put([array("d", [step + rank / 8]), MPI.DOUBLE], right, 1 + step % 3)
    time.sleep(PAUSE_S * (rank % 2))
    fenced.Fence()
    digest.update(mine.tobytes())
    fenced.Fence()  # or the next step's would come while we read
    # tickets, by an exclusive lock around reading and writing
    ticket = array("q", [0])
    counter.Lock(0)
    counter.Get([ticket, MPI.INT64_T], 0, 0)
    counter.Flush(0)
    time.sleep(PAUSE_S / 4)
    drawn.append(ticket[0])
    counter.Put([array("q", [ticket[0] + 1]), MPI.INT64_T], 0, 0)
    counter.Unlock(0)
    # everybody counts everywhere, under a lock that is never given back
    for target in range(size):
        request = board.Raccumulate([array("q", [target + 1]), MPI.INT64_T], target, rank, op=MPI.SUM)
        time.sleep(PAUSE_S / 8)
        request.Wait()
    board.Flush_all()
    before = array("q", [0])
    some.Lock(0, MPI.LOCK_SHARED)
    time.sleep(PAUSE_S / 4)
    some.Fetch_and_op([array("q", [1]), MPI.INT64_T], [before, MPI.INT64_T], 0, 0, MPI.SUM)
    some.Unlock(0)
    if half.rank == step % half.size:  # others may be reading
        some.Lock(0)
        some.Accumulate([array("q", [1000]), MPI.INT64_T], 0, 0, op=MPI.SUM)
        time.sleep(PAUSE_S / 4)
        some.Unlock(0)
    if step % 5 == 4:
        comm.Barrier()
        digest.update(seen.tobytes())
        comm.Barrier()
drawn_by_all = sorted(each for part in comm.allgather(drawn) for each in part)
assert drawn_by_all == list(range(STEPS * size)), drawn_by_all
comm.Barrier()
total = array("q", [0])
some.Lock(0, MPI.LOCK_SHARED)
some.Get([total, MPI.INT64_T], 0, 0)
some.Unlock(0)
assert total[0] == STEPS * half.size + 1000 * STEPS, total[0]
board.Unlock_all()
digest.update(repr((seen.tolist(), fenced.name, counter.flavor == MPI.WIN_FLAVOR_ALLOCATE)).encode())
digest.update(repr((some.Get_attr(keyval), some.group_size, fenced.attrs[1:])).encode())
for window in (fenced, counter, some):  # the board is there to the end
    window.Free()
for line in comm.gather(digest.hexdigest()) or ():
    print(line)
if rank == 0:
    print("done", flush=True)
