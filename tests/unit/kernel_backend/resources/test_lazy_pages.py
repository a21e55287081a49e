"""Which memory a lazy restore maps from the image, and which it reads."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_backend.abi import linux
from kernel_backend.image.entries import PageRun, VmaEntry
from kernel_backend.resources import lazy_pages

PAGE = linux.PAGE_SIZE
BASE = 0x7F00_0000_0000
RW = linux.PROT_READ | linux.PROT_WRITE
MIB_PAGES = (1 << 20) // PAGE


class Process:
    """What `split` looks at of a ProcessEntry: malloc's blocks, one behind the other, some of whose pages were used."""

    def __init__(self, block_pages: list[int], used: list[bool], **vma: object) -> None:
        total = sum(block_pages)
        used = (used * (total // len(used) + 1))[:total]
        self.starts = [sum(block_pages[:i]) for i in range(len(block_pages))]
        for start in self.starts:
            used[start] = True  # where the block's header stands
        self.vmas = [VmaEntry(BASE, BASE + total * PAGE, RW, "anon", **vma)]  # type: ignore[arg-type]
        self.pagemap: list[PageRun] = []
        self.headers: list[tuple[int, int]] = []
        offset = 0
        for page, here in enumerate(used):
            if not here:
                continue
            if page in self.starts:
                self.headers.append((offset, block_pages[self.starts.index(page)] * PAGE))
            last = self.pagemap[-1] if self.pagemap else None
            if last is not None and last.address + last.length == BASE + page * PAGE:
                last.length += PAGE
            else:
                self.pagemap.append(PageRun(BASE + page * PAGE, PAGE, offset))
            offset += PAGE

    def write(self, path: Path) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        for offset, length in self.headers:
            os.pwrite(fd, struct.pack("<QQ", 0, length | 2), offset)
        os.ftruncate(fd, sum(run.length for run in self.pagemap))
        return fd

    def split(self, path: Path) -> tuple[list[PageRun], list[PageRun]]:
        fd = self.write(path)
        try:
            return lazy_pages.split(self, fd)  # type: ignore[arg-type]
        finally:
            os.close(fd)


def pages_of(runs: list[PageRun]) -> Iterator[tuple[int, int]]:
    for run in runs:
        for at in range(0, run.length, PAGE):
            yield run.address + at, run.offset + at


@given(
    st.lists(st.integers(1, 4 * MIB_PAGES), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(1, 2 * MIB_PAGES), st.booleans()), min_size=1, max_size=6),
)
def test_every_page_is_either_mapped_or_read(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[int], stretches: list[tuple[int, bool]]
) -> None:
    used = [here for length, here in stretches for _ in range(length)]
    process = Process(blocks, used)
    mapped, read = process.split(tmp_path_factory.getbasetemp() / "pages")
    assert sorted([*pages_of(mapped), *pages_of(read)]) == sorted(pages_of(process.pagemap))
    last_pages = {BASE + (start + length - 1) * PAGE for start, length in zip(process.starts, blocks, strict=True)}
    assert not last_pages & {address for address, _ in pages_of(mapped)}
    assert all(run.length >= lazy_pages.LEAST_BYTES for run in mapped)


def test_there_are_never_more_pieces_than_mappings_allowed(tmp_path: Path) -> None:
    stretch = [True] * MIB_PAGES + [False]
    process = Process([len(stretch) * (lazy_pages.MOST_PIECES + 100)], stretch)
    mapped, read = process.split(tmp_path / "pages")
    assert len(mapped) == lazy_pages.MOST_PIECES
    assert sum(run.length for run in [*mapped, *read]) == sum(run.length for run in process.pagemap)


@pytest.mark.parametrize("special", [{"name": "mine"}, {"locked": True}, {"advice": [linux.MADV_DONTFORK]}])
def test_what_a_mapping_of_a_file_could_not_be_is_read(tmp_path: Path, special: dict[str, object]) -> None:
    process = Process([4 * MIB_PAGES], [True], **special)
    assert process.split(tmp_path / "pages") == ([], process.pagemap)


def test_huge_pages_are_asked_for_again(tmp_path: Path) -> None:
    process = Process([4 * MIB_PAGES], [True], advice=[linux.MADV_HUGEPAGE])
    mapped, _ = process.split(tmp_path / "pages")
    calls = lazy_pages.advise_calls(process, mapped)  # type: ignore[arg-type]
    assert [(call[0], *call[1]) for call in calls] == [
        ("madvise", run.address, run.length, linux.MADV_HUGEPAGE) for run in mapped
    ]
