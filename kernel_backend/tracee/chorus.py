"""System calls made by many stopped threads at the same time.

An injected call is several messages between us and a thread, for each of which the thread has to be scheduled. With
one thread after the other we would mostly wait. So, as in a chorus, all begin together: every thread is set going
before any is waited for.

What one thread is to call is a generator (`Asking`), which reads as if that thread were alone: it yields a call, is
sent the result, and returns what it has found out (the `ask_…` functions in resources/). Calls of one thread that do
not depend on each other's results are yielded as a batch (`together`), which saves stops (batch.py).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Generic, TypeVar

from kernel_backend.abi import arch
from kernel_backend.errors import EngineError
from kernel_backend.tracee.batch import Batch, BatchRun
from kernel_backend.tracee.inject import Borrowed, Call, check, failed_with

T = TypeVar("T")
Asking = Generator[Call | Batch, int, T]
_AT_ONCE = 32  # keeps many processors busy, and is come round to long before a batch has waited in vain


def together_at_once(borrowed: Borrowed) -> bool:
    """Whether `together` makes its calls without a stop, and then all of them, also behind one that fails."""
    return bool(borrowed.gadgets.store) and not borrowed.sleeps_on


def together(borrowed: Borrowed, *calls: Call, unsure: Sequence[Call] = ()) -> Asking[list[int]]:
    """Make several calls, none of which may block: their results. OSError of the first that fails.

    Those which are `unsure` come last, are made also behind one that fails, and give raw results (inject.check).
    """
    every, raw = [*calls, *unsure], list[int]()
    if together_at_once(borrowed):
        for first in range(0, len(every), Batch.MOST):
            batch = Batch(every[first : first + Batch.MOST])
            yield batch
            raw += batch.results
    else:
        for call in every:
            try:
                raw.append((yield call))
            except OSError as error:
                raw.append(failed_with(error.errno or 0))
    return [check(result, name) for result, (name, _) in zip(raw, calls, strict=False)] + raw[len(calls) :]


class Chorus:
    """A context in which stopped threads make system calls together, and afterwards are as they were."""

    def __init__(self, members: Iterable[Borrowed]) -> None:
        self._members = list(members)
        self._stack = ExitStack()

    def __enter__(self) -> Chorus:
        with self._stack as stack:
            for member in self._members:
                stack.enter_context(member)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """All are sent back before any is waited for; what fails is told by the member's own way out."""
        for member in self._members:
            try:
                member.begin_to_leave()
            except (OSError, EngineError):
                continue
        self._stack.__exit__(kind, error, trace)

    def run(self, askings: Mapping[Borrowed, Asking[T]]) -> dict[Borrowed, T]:
        """Drive the askings of some members to their ends; what each returned.

        Raises what the first of them raised, once every thread is at rest again.
        """
        parts = [_Part(member, asking) for member, asking in askings.items()]
        while going := [part for part in parts if part.call is not None]:
            for first in range(0, len(going), _AT_ONCE):
                some = going[first : first + _AT_ONCE]
                for part in some:
                    part.attempt(part.begin)
                for part in some:
                    part.attempt(part.go_on)
                for part in some:
                    part.attempt(part.take_result)
            failed = next((part.failure for part in going if part.failure is not None), None)
            if failed is not None:
                raise failed
        return {part.member: part.found for part in parts if part.found is not None}


class _Part(Generic[T]):
    """What one member does: the call or batch it is at, and in the end what it found out."""

    def __init__(self, member: Borrowed, asking: Asking[T]) -> None:
        self.member = member
        self.call: Call | Batch | None = None
        self.found: T | None = None
        self.failure: Exception | None = None
        self._asking = asking
        self._run: BatchRun | None = None
        self._advance(lambda: next(asking))

    def attempt(self, work: Callable[[], None]) -> None:
        """Do one step of a round, unless an earlier one failed: then this thread is out of it."""
        if self.failure is None:
            try:
                work()
            except Exception as error:
                self.failure = error

    def begin(self) -> None:
        """Send the thread to the entry of its call, or into its batch."""
        assert self.call is not None
        if isinstance(self.call, Batch):
            self._run = BatchRun(self.member, self.call)
            self._run.begin()
        else:
            self._run = None
            name, args = self.call
            self.member.begin(arch.SYS[name], args)

    def go_on(self) -> None:
        """Into the call; or to the end of the batch."""
        if self._run is not None:
            self._run.interrupt()
        else:
            self.member.go_inside()

    def take_result(self) -> None:
        """Hand the result (or OSError) to the asking, and take its next call."""
        try:
            value = self._result()
        except OSError as error:
            refused = error
            self._advance(lambda: self._asking.throw(refused))
        else:
            self._advance(lambda: self._asking.send(value))

    def _result(self) -> int:
        if isinstance(self.call, Batch):
            assert self._run is not None
            self._run.finish()
            return 0  # the batch has them
        raw, (name, _) = self.member.result(), self.call or ("", ())
        return check(raw, name)

    def _advance(self, step: Callable[[], Call | Batch]) -> None:
        try:
            self.call = step()
        except StopIteration as end:
            self.call, self.found = None, end.value
