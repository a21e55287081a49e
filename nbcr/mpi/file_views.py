"""File views: which bytes of a file are the stream of data that a program reads and writes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

Run = tuple[int, int]  # offset and length


class View:
    """A displacement, and a file type that is repeated from there on."""

    def __init__(self, displacement: int, etype_size: int, runs: Sequence[Run] = ((0, 1),), extent: int = 1) -> None:
        self.displacement = displacement
        self.etype_size = etype_size
        self._runs = runs
        self._extent = extent
        self._starts = [0, *accumulate(length for _, length in runs)]  # of each run, in the data of one file type
        self._size = self._starts.pop()
        self.is_dense = len(runs) == 1 and self._size == extent

    @property
    def is_empty(self) -> bool:
        """Whether it shows nothing of the file."""
        return not self._size

    @property
    def is_close(self) -> bool:
        """Whether there is so little between the runs that it is cheaper to read that too."""
        return self._extent <= 64 * self._size

    def pieces(self, position: int, length: int) -> Iterator[Run]:
        """Where in the file `length` bytes of the data from `position` on are; of a view that shows something."""
        if self.is_dense:
            yield self.displacement + self._runs[0][0] + position, length
            return
        tile, within = divmod(position, self._size)
        index = bisect_right(self._starts, within) - 1
        skipped = within - self._starts[index]
        while length > 0:
            offset, run = self._runs[index]
            part = min(run - skipped, length)
            yield self.displacement + tile * self._extent + offset + skipped, part
            length, skipped, index = length - part, 0, index + 1
            if index == len(self._runs):
                tile, index = tile + 1, 0

    def offset(self, position: int) -> int:
        """Where the data's byte `position` is."""
        return next(self.pieces(position, 1))[0] if self._size else self.displacement

    def size_before(self, end: int) -> int:
        """How much of the data is before offset `end` of the file."""
        end -= self.displacement
        if end <= 0 or not self._size or self._extent <= 0:
            return 0
        first, last = self._runs[0][0], sum(self._runs[-1])
        tile = max(0, (end - last) // self._extent + 1)  # those before are there as a whole
        size = tile * self._size
        while tile * self._extent + first < end:
            left = end - tile * self._extent
            size += sum(min(length, max(0, left - offset)) for offset, length in self._runs)
            tile += 1
        return size
