"""Pickled reductions of what does not commute: prints in which order each combined.

python combining.py
"""

from mpi4py import MPI

comm = MPI.COMM_WORLD


def joined(first, second):
    return f"({first}{second})"


found = [comm.reduce(comm.rank, joined, root) for root in range(comm.size)]
found += [comm.allreduce(comm.rank, joined), comm.scan(comm.rank, joined), comm.exscan(comm.rank, joined)]
half = comm.Split(comm.rank % 2)
other = half.Create_intercomm(0, comm, 1 - comm.rank % 2)
found.append(other.allreduce(comm.rank, joined))
for line in comm.gather(found) or ():
    print(line)
