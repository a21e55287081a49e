"""A pool whose workers MPI would have to spawn."""

from mpi4py.futures import MPIPoolExecutor

if __name__ == "__main__":
    with MPIPoolExecutor(1) as pool:
        print(*pool.map(abs, [-1, -2]))
