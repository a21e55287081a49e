"""pandas' frames, series and indexes that share memory.

They copy it when one of them is written to, and know by a common list who else has it. pickle forgets the list, and
frames would write into each other, and into arrays that were taken from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.arrays import memory_owner
from nbcr.objects.kinds.base import Kind, Reduction, dotted_name

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey


class BlockManagers(Kind):
    """What holds the memory of a frame or series."""

    types = ("pandas.core.internals.managers.BaseBlockManager",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        if not any(_is_shared(block.refs) for block in obj.blocks) or not _copies_on_write():
            return NotImplemented
        for block in obj.blocks:
            if dotted_name(type(block.values)) == "numpy.ndarray":
                pickler.context.is_shared(memory_owner(block.values))  # or it is not known who else has this memory
        maker, arguments, *more = obj.__reduce_ex__(5)
        state = more[0] if more else None
        return maker, arguments, (state, [block.refs for block in obj.blocks]), None, None, set_manager_state


def set_manager_state(manager: Any, state: tuple[Any, list[Any]]) -> None:
    """Fill it as pandas does, and let its blocks know who else has their memory."""
    own, owners = state
    if own is not None:
        manager.__setstate__(own)
    for block, others in zip(manager.blocks, owners, strict=True):
        if others is not None:
            block.refs = others
            others.add_reference(block)


class Indexes(Kind):
    """An index made of a column knows the same list."""

    types = ("pandas.core.indexes.base.Index", "pandas.Index")

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        others = vars(obj).get("_references")  # a range, which has no memory, makes up its own
        if not _is_shared(others) or not _copies_on_write():
            return NotImplemented
        maker, arguments = obj.__reduce_ex__(5)[:2]
        return maker, arguments, others, None, None, set_index_references


def set_index_references(index: Any, others: Any) -> None:
    """Let an index know who else has its memory."""
    index._references = others
    others.add_index_reference(index)


class References(Kind):
    """The list itself: whoever comes back enters it again."""

    types = ("pandas._libs.internals.BlockValuesRefs",)

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return ()

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        return type(obj), ()


def _is_shared(owners: Any) -> bool:
    """Whether more than one block or index is in the list."""
    return owners is not None and owners.has_reference()


def _copies_on_write() -> bool:
    import pandas as pd

    if int(pd.__version__.partition(".")[0]) >= 3:
        return True
    return bool(pd.options.mode.copy_on_write is True)


KINDS: tuple[Kind, ...] = (BlockManagers(), Indexes(), References())
