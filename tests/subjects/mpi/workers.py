"""A master hands out tasks (pickles) to whoever asks (ANY_SOURCE), workers send results of any size back by
different calls. Prints the digest of all results, in the order of the tasks.

    python workers.py TASKS [PAUSE_S]
"""

import hashlib
import sys
import time

from mpi4py import MPI

TASKS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
ASK, TASK, RESULT = 1, 2, 3

comm = MPI.COMM_WORLD.Dup()


def master():
    results, given, at_work = {}, 0, comm.size - 1
    while at_work:
        status = MPI.Status()
        message = comm.recv(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG, status=status)
        if status.Get_tag() == RESULT:
            assert status.Get_source() == message["worker"]
            assert message["task"] not in results
            results[message["task"]] = message["text"]
            continue
        assert status.Get_tag() == ASK
        if given < TASKS:
            comm.send({"task": given, "words": ["w"] * (given % 700)}, status.Get_source(), TASK)
            given += 1
        else:
            comm.send(None, status.Get_source(), TASK)
            at_work -= 1
    assert sorted(results) == list(range(TASKS))
    print(hashlib.sha256("".join(results[task] for task in range(TASKS)).encode()).hexdigest())


def worker():
    going = []
    while True:
        comm.send("work?", 0, ASK)
        asked = comm.irecv(source=0, tag=TASK)
        if PAUSE_S:
            time.sleep(PAUSE_S)
        task = asked.wait()
        if task is None:
            break
        number = task["task"]
        assert len(task["words"]) == number % 700
        text = hashlib.sha256(str(number).encode()).hexdigest() * (1 + (number * 37) % 900)
        result = {"worker": comm.rank, "task": number, "text": text}
        if number % 3:
            going.append(comm.isend(result, 0, RESULT))
        else:
            comm.ssend(result, 0, RESULT)
    MPI.Request.waitall(going)


if comm.rank == 0:
    print("ready", flush=True)
    master()
else:
    worker()
MPI.COMM_WORLD.Barrier()
if comm.rank == 0:
    print("done", flush=True)
