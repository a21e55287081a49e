"""What programs see of mpi4py besides messages: errors, handles that are freed, copies, pickles, names, help. Prints
one digest for each rank.

python likeness.py STEPS [PAUSE_S]
"""

import contextlib
import hashlib
import io
import pickle
import sys
import time

from mpi4py import MPI

STEPS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
comm = MPI.COMM_WORLD
digest = hashlib.sha256()
watched, noticed = comm.Dup(), []
handler = MPI.Comm.Create_errhandler(lambda comm, code: noticed.append((comm == watched, MPI.Get_error_class(code))))
watched.Set_errhandler(handler)
another = comm.Dup()
another.Set_errhandler(handler)
handler.Free()  # the communicators keep it
hint, pair = MPI.Info.Create({"a": "b"}), MPI.INT.Create_contiguous(2).Commit()  # each has several names
hints = [hint, MPI.Info(hint), MPI.Info.fromhandle(hint.handle)]
pairs = [pair, MPI.Datatype(pair)]


def told(call, *args):
    """What a call gives, or by which class of error it ends."""
    try:
        found = call(*args)
    except MPI.Exception as error:
        return MPI.Get_error_string(error.Get_error_class())
    except Exception as error:
        return type(error).__name__
    return found if isinstance(found, (int, str, tuple, type(None))) else type(found).__name__


def freed(make):
    made = make()
    made.Free()
    return made


def errors():
    """Of calls that have no communicator."""
    yield told(watched.Send, b"", comm.size + 5), noticed.pop()
    yield told(another.Send, b"", comm.size + 5), noticed.pop(), noticed == []
    yield told(MPI.INT.Create_vector, -1, 1, 1)
    yield told(MPI.DATATYPE_NULL.Commit)
    yield told(MPI.INT.Free)
    yield told(comm.Get_group().Incl, [comm.size + 7])
    yield told(freed(lambda: MPI.INT.Create_contiguous(2)).Get_size)
    yield told(freed(lambda: MPI.Info.Create()).Get_nkeys)
    yield told(MPI.Comm.Compare, MPI.COMM_NULL, comm)
    yield told(MPI.Intercomm().Get_remote_size)
    yield told(MPI.REQUEST_NULL.Cancel)
    yield told(MPI.REQUEST_NULL.Free)
    yield told(comm.Get_attr, MPI.KEYVAL_INVALID)
    yield told(hash, comm)
    yield told(MPI.Message, MPI.INT)


def handles():
    """Predefined ones stay, their copies can be freed, pickles find them."""
    for constant in (MPI.INT, MPI.SUM, MPI.GROUP_EMPTY, MPI.INFO_ENV, MPI.MESSAGE_NO_PROC, MPI.COMM_SELF):
        constant.free()
        yield bool(constant), pickle.loads(pickle.dumps(constant)) is constant
        copy = type(constant)(constant)
        found = pickle.loads(pickle.dumps(copy))
        yield found == constant, found is constant, type(found) is type(constant), type(constant).__name__
        copy.free()
        yield bool(copy), copy == constant
    yield [each.Get("a") for each in hints], [each.Get_size() for each in pairs]
    MPI.MESSAGE_NO_PROC.Recv(None)
    yield bool(MPI.MESSAGE_NO_PROC), MPI.COMM_NULL.Get_name(), MPI.INT.__eq__("INT") is NotImplemented
    yield type(MPI.INT.fromhandle(MPI.INT.handle)) is MPI.Datatype, isinstance(MPI.Info.Create({"a": "b"}), MPI.Info)


def types():
    for datatype in (
        MPI.CHAR.Dup(), MPI.DOUBLE.Dup().Dup(), MPI.INTEGER, MPI.REAL,
        MPI.Datatype.Create_struct([1, 2], [0, 8], [MPI.INT, MPI.DOUBLE]),
    ):  # fmt: skip
        yield datatype.typestr, datatype.typechar, told(datatype.tocode) == "ValueError"


def attributes():
    """A function that raises when its attribute is deleted has it deleted all the same."""

    def delete(owner, keyval, value):
        raise ValueError(value)

    duplicate, keyval = comm.Dup(), MPI.Comm.Create_keyval(None, delete)
    duplicate.Set_attr(keyval, 7)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        yield told(duplicate.Delete_attr, keyval), "ValueError" in said.getvalue(), duplicate.Get_attr(keyval)
        duplicate.Set_attr(keyval, 8)
        yield told(duplicate.Free)


def messages():
    """Nothing is sent where the other buffer is none."""
    yield told(lambda: MPI.COMM_SELF.Sendrecv(bytearray(4), 0, 5, object(), 0, 5)), MPI.COMM_SELF.Iprobe(0, 5)
    yield told(lambda: MPI.COMM_SELF.Sendrecv(object(), 0, 5, bytearray(4), 0, 5))
    got = bytearray(4)
    MPI.COMM_SELF.Sendrecv(b"abcd", 0, 5, got, 0, 5)
    yield bytes(got), bool(comm.Bcast.__doc__), MPI.Datatype.Create_vector.__doc__.strip().splitlines()[-1]
    for send in ("send", "ssend", "isend", "issend"):
        waiting = MPI.COMM_SELF.irecv(source=0, tag=6)
        sent = getattr(MPI.COMM_SELF, send)(obj=send, dest=0, tag=6)
        yield waiting.wait()
        if sent is not None:
            sent.wait()
    sent = MPI.COMM_SELF.Isend(buf=b"x", dest=0, tag=6)
    yield told(pickle.dumps, sent)
    MPI.COMM_SELF.Recv(bytearray(1), 0, 6)
    sent.Wait()


if comm.rank == 0:
    print("ready", flush=True)
for step in range(STEPS):
    time.sleep(PAUSE_S)
    for part in (errors, handles, types, attributes, messages):
        for seen in part():
            digest.update(repr((step, seen)).encode())
            if step == 0 and len(sys.argv) > 3:
                print(part.__name__, seen, flush=True)
for line in comm.gather(digest.hexdigest()) or ():
    print(line)
if comm.rank == 0:
    print("done", flush=True)
