"""MPI jobs: the part of nbcr that lives in each rank. Started by `nbcr run -- mpiexec …`; see docs/mpi.md.

The shape is that of LAM's checkpointer (seeds 001, 002): coordinate, drain, tear MPI down, take every rank's image, set
MPI up again, go on. A rank without MPI is self-contained; its messages in flight lie in a queue of its own memory.

site/sitecustomize, entering   how the gate comes into a rank: when the program imports mpi4py
gate                           who is inside MPI, and who must wait
world                          setting MPI up and tearing it down
finalizers                     … as often as one likes
communicators                  mpi4py's communicators behind the gate
point_to_point                 … their messages
collectives, pickled           … their collective calls
intercomms                     … between two groups
requests, messages             requests and matched messages
windows, active_targets        memory that other ranks reach (RMA); Post, Start, Complete and Wait
persistent, buffered           requests that are started again and again; sends that nobody waits for
guarding                       local calls, and which objects the program has
handles, attributes            types, groups, operations, hints: noted; what hangs on them
recipes                        … how they are made again
errhandlers                    functions of the program that are called on errors
unowned_errors                 errors that no communicator's handler is asked about
files                          MPI-IO: mpi4py's files, over plain ones
file_state, file_shared        … one that is open; the pointer that its ranks share
file_views, file_types         … which of its bytes the program sees
file_bytes                     … between these and the program's buffers
constants                      the module's own objects as ours, and their pickles
support                        what no checkpoint can hold: noted, and refused by name
queue, draining                messages that were taken out of MPI, and how
rank                           the conversation with the launcher; the handler
combining                      the order of pickled reductions
besides                        connections between ranks that are not MPI's
leaving                        how a rank's end is said to its mpiexec
dialling                       a connection with the launcher that broke, made again
stub                           what a rank's image is restored over
agents                         how the launcher's agent comes to another host
modes                          images, or in cooperation with the program: what this host's MPI allows
cooperative                    … the latter: states saved at a safe point
"""

from __future__ import annotations

from typing import Any


def checkpoint_here(state: Any) -> Any:
    """A safe point of a job under `nbcr run`, for an MPI that cannot be initialised again (Open MPI): `state` is saved
    when a checkpoint has been asked for. All ranks call it, as a collective.

    Returns `state`; in a restarted job the first call returns what was saved. Where ranks are saved by images, or
    without `nbcr run`, nothing happens.
    """
    from nbcr.mpi.cooperative import cooperation

    return cooperation.checkpoint_here(state)
