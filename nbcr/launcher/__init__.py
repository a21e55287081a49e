"""`nbcr run`: a launcher above a program or an MPI job, that takes checkpoints of it as a whole and brings them back.

jobs         names of running jobs, and how to ask one          schema     what a job is started by, and again
launcher     the process: starts, listens, ends as the job      members    the ranks as it sees them
commands     the command of a job: started, or brought back
coordinating one checkpoint of all ranks                        imaging    their images, in parallel
returning    a checkpoint under a new mpiexec                    cooperating  … of ranks that save their own state
doors        the Unix socket, and TCP for other hosts            hosts, agent  who takes and restores images there
scripts      programs that start an mpiexec themselves          keeping    checkpoints that nobody asks for, --resume
placing      where ranks go, and what they must know of it       leftovers    shared memory that killed ranks leave
"""
