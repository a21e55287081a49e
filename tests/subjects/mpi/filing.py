"""MPI-IO: views by vectors and subarrays, the pointers of each rank and the one they share, ordered and split calls,
files that come and go. Its files are in FOLDER; looks at its end whether in them is what should be.

    python filing.py FOLDER STEPS [PAUSE_S]
"""

import sys
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI

FOLDER = Path(sys.argv[1])
STEPS = int(sys.argv[2])
PAUSE_S = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
BLOCK, ROWS, COLUMNS = 3, 4, 6
NEW = MPI.MODE_CREATE | MPI.MODE_RDWR

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size


def opened(name, amode=NEW, among=comm):
    return MPI.File.Open(among, FOLDER / name, amode)


def interleaved():
    """Blocks of the ranks in turns, by each rank's own pointer."""
    file = opened("interleaved")
    vector = MPI.DOUBLE.Create_vector(2, BLOCK, BLOCK * size)
    filetype = vector.Create_resized(0, 2 * BLOCK * size * MPI.DOUBLE.size).Commit()
    file.Set_view(rank * BLOCK * MPI.DOUBLE.size, MPI.DOUBLE, filetype)
    filetype.Free()
    return file


def table():
    """An array whose columns belong to the ranks."""
    file = opened("table")
    part = MPI.INT.Create_subarray([ROWS, COLUMNS * size], [ROWS, COLUMNS], [0, rank * COLUMNS]).Commit()
    file.Set_view(0, MPI.INT, part)
    return file, part


def scratch(step):
    """A file of some ranks that is gone when it is closed."""
    some = comm.Split(rank % 2)
    file = opened(f"scratch-{rank % 2}", NEW | MPI.MODE_DELETE_ON_CLOSE, some)
    file.Write_at_all(some.rank, np.full(1, step % 100, "b"))
    file.Sync()
    read = np.zeros(some.size, "b")
    file.Read_at(0, read)
    assert (read == step % 100).all()
    file.Close()
    some.Free()


blocks, (grid, part), log, ordered = interleaved(), table(), opened("log"), opened("ordered")
memory = MPI.INT.Create_vector(ROWS * COLUMNS, 1, 2).Commit()  # every second number
if rank == 0:
    print("ready", flush=True)
for step in range(STEPS):
    blocks.Write_all(np.full(2 * BLOCK, step + rank / 8))
    log.Write_shared(np.array([step, rank], "i"))
    mine = np.full(rank + 1, step, "i")
    ordered.Write_ordered_begin(mine)
    if PAUSE_S and (step + rank) % 2:
        time.sleep(PAUSE_S)
    ordered.Write_ordered_end(mine)
    grid.Seek(0)
    grid.Iwrite([np.arange(2 * ROWS * COLUMNS, dtype="i") + step, 1, memory]).Wait()
    back, status = np.zeros(2 * ROWS * COLUMNS, "i"), MPI.Status()
    grid.Read_at_all(0, [back, 1, memory], status)
    assert status.Get_count(MPI.INT) == ROWS * COLUMNS
    assert (back[::2] == np.arange(0, 2 * ROWS * COLUMNS, 2) + step).all()
    assert blocks.Get_position() == 2 * BLOCK * (step + 1)
    if step:
        before = np.zeros(2 * BLOCK)
        blocks.Iread_at((step - 1) * 2 * BLOCK, before).Wait()
        assert (before == step - 1 + rank / 8).all()
    if step % 10 == 0:
        scratch(step)
    comm.Barrier()
    assert log.Get_position_shared() == 8 * size * (step + 1)
    assert ordered.Get_position_shared() == 2 * size * (size + 1) * (step + 1)
    comm.Barrier()

assert grid.Get_view()[2].Get_extent() == part.Get_extent()
for file in (blocks, grid, log, ordered):
    file.Close()
if rank == 0:
    records = np.fromfile(FOLDER / "log", "i").reshape(-1, 2)
    assert sorted(map(tuple, records.tolist())) == [(step, each) for step in range(STEPS) for each in range(size)]
    steps = np.arange(STEPS)
    written = np.fromfile(FOLDER / "interleaved").reshape(STEPS, 2, size, BLOCK)
    assert (written == steps[:, None, None, None] + np.arange(size)[:, None] / 8).all()
    assert (np.fromfile(FOLDER / "ordered", "i") == steps.repeat(size * (size + 1) // 2)).all()
    parts = np.fromfile(FOLDER / "table", "i").reshape(ROWS, size, COLUMNS)
    assert (parts == np.arange(0, 2 * ROWS * COLUMNS, 2).reshape(ROWS, 1, COLUMNS) + STEPS - 1).all()
    print(*sorted(path.name for path in FOLDER.iterdir()))
    print("done", flush=True)
