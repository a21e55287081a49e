"""numpy arrays.

Views stay views of one memory, memory goes out of band; memory-mapped files.
"""

from __future__ import annotations

import gc
import mmap
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcr.objects.absent import absent
from nbcr.objects.blobs import OUT_OF_BAND_BYTES
from nbcr.objects.kinds.base import Kind, Reduction, dotted_name
from nbcr.objects.kinds.buffers import address_of
from nbcr.objects.kinds.functions import attribute
from nbcr.objects.kinds.tensors import address_of_storage, memory_shared_with

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey

_NO_LONGER_SHARED = "its array no longer shares memory"
# What is saved with its memory, so that an array can look into it again.
_FOREIGN_OWNERS = {"builtins.bytearray", "array.array", "_ctypes._CData"}


def memory_owner(array: Any) -> Any:
    """What holds the memory that `array` looks at.

    Another array, a bytearray, …; the array itself when nobody else does.
    """
    import numpy as np

    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    foreign = _foreign_owner(owner)
    if type(foreign).__module__ == "mmap":  # as that of all arrays from one snapshot's file: nobody's in particular
        return owner
    if any(dotted_name(base) in _FOREIGN_OWNERS for base in type(foreign).__mro__):
        return foreign
    return owner


def _foreign_owner(array: Any) -> Any:
    foreign = getattr(array, "base", None)
    while isinstance(foreign, memoryview):
        foreign = foreign.obj
    return foreign


class Arrays(Kind):
    """numpy.ndarray; subclasses that are no more than that with attributes, the others pickle themselves."""

    types = ("numpy.ndarray",)

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any] | None:
        owner = memory_owner(obj)
        survey.note_memory(owner, obj)
        if "torch" in sys.modules and type(owner) is type(obj) and owner.nbytes:
            address = address_of_storage(_foreign_owner(owner))
            if address is not None:
                survey.note_address(address, obj)
            elif owner.dtype.kind in "biufc" and owner.dtype.isnative:
                survey.note_address(owner.__array_interface__["data"][0], obj, owner)
        inside = obj.ravel().tolist() if obj.dtype.hasobject else ()
        return [*inside, *_attributes_of(obj).values()]

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        owner = memory_owner(obj)
        exact, pickles_itself = _is_exact(obj), _pickles_itself(type(obj))
        if exact and "torch" in sys.modules and (shared := memory_shared_with(obj, _foreign_owner(owner), pickler)):
            memory, address = shared
            start = obj.__array_interface__["data"][0] - address
            return make_array_view, (memory, start, obj.shape, obj.strides, obj.dtype, obj.flags.writeable)
        if owner is not obj and pickler.context.is_shared(owner):
            view = None if pickles_itself else _view_of(obj, owner)
            if view is not None:
                return view if exact else _of_subclass(obj, view)
            pickler.remarks.add(_NO_LONGER_SHARED)
        if not exact:
            return NotImplemented if pickles_itself or not _attributes_of(obj) else _of_subclass(obj, _plain(obj))
        if type(owner) is type(obj) and type(_foreign_owner(owner)) is mmap.mmap:  # others may have it: shared memory
            pickler.remarks.add(_NO_LONGER_SHARED)
        if obj.flags.writeable:
            return self._own_memory(obj)
        return make_read_only, _without_reducing(self._own_memory(obj), obj)

    def _own_memory(self, obj: Any) -> Reduction:
        """The array as owner of its memory."""
        if obj.dtype.hasobject:
            return NotImplemented
        if obj.nbytes < OUT_OF_BAND_BYTES and obj.dtype.isnative:
            return obj.__reduce__()  # in the pickle, and owner of its memory again
        if not (obj.flags.c_contiguous or obj.flags.f_contiguous):
            import numpy as np

            return np.ascontiguousarray(obj).__reduce_ex__(5)
        return NotImplemented


def _is_exact(array: Any) -> bool:
    return dotted_name(type(array)) == "numpy.ndarray"


def _attributes_of(array: Any) -> dict[str, Any]:
    return getattr(array, "__dict__", {})


def _of_subclass(array: Any, plain: tuple[Any, tuple[Any, ...]]) -> Reduction:
    """One of a subclass. numpy itself would save what is in the array, and nothing that the subclass adds."""
    maker, arguments = plain
    made: Any = type(array), maker, arguments, {}
    return make_subclass_view, made, _attributes_of(array) or None, None, None, set_array_attributes


def _plain(array: Any) -> tuple[Any, tuple[Any, ...]]:
    import numpy as np

    return np.asarray, (np.asarray(array),)


def set_array_attributes(array: Any, attributes: dict[str, Any]) -> None:
    """Give one of a subclass what the subclass adds."""
    vars(array).update(attributes)


def _pickles_itself(cls: Any) -> bool:
    """Whether a subclass has more to it than attributes."""
    import numpy as np

    hooks = ("__reduce__", "__reduce_ex__", "__setstate__", "__getstate__")
    return any(getattr(cls, hook, None) is not getattr(np.ndarray, hook, None) for hook in hooks)


def _without_reducing(reduction: Reduction, array: Any) -> tuple[Any, ...]:
    """How an array is made, as arguments: maker, its arguments, and the state that it is given."""
    made = array.__reduce_ex__(5) if reduction is NotImplemented else reduction
    return made[0], made[1], made[2] if len(made) > 2 else None


def make_read_only(maker: Any, arguments: tuple[Any, ...], state: Any) -> Any:
    """An array that cannot be written to."""
    made = maker(*arguments)
    if state is not None:
        made.__setstate__(state)
    return _with_writeable(made, writeable=False)


def make_subclass_view(cls: Any, maker: Any, arguments: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
    """A view that is of a subclass."""
    made = maker(*arguments).view(cls)
    if attributes:
        vars(made).update(attributes)
    return made


def _view_of(array: Any, owner: Any) -> Reduction | None:
    """`array` as a window into `owner`; None where that cannot be told."""
    import numpy as np

    if isinstance(owner, np.ndarray):
        if not (owner.flags.c_contiguous or owner.flags.f_contiguous):
            return None
        if array.dtype.hasobject and array.dtype != owner.dtype:
            return None
        start = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    else:
        start = array.__array_interface__["data"][0] - address_of(owner)
    return make_array_view, (owner, start, array.shape, array.strides, array.dtype, array.flags.writeable)


def make_array_view(
    owner: Any, start: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any, writeable: bool
) -> Any:
    """An array that looks into `owner`."""
    import numpy as np

    memory = owner
    if isinstance(owner, np.ndarray):
        flat = (owner if owner.flags.c_contiguous else owner.T).reshape(-1)
        if dtype.hasobject:
            origin = flat[start // dtype.itemsize :]
            made = np.lib.stride_tricks.as_strided(origin, shape, strides, writeable=True)
            return _with_writeable(made, writeable=writeable)
        memory = flat.view(np.uint8)
    made = np.ndarray(shape, dtype, memory, start, strides)
    return _with_writeable(made, writeable=writeable)


def _with_writeable(array: Any, *, writeable: bool) -> Any:
    if not writeable:
        array.flags.writeable = False
    return array


class MappedArrays(Kind):
    """numpy.memmap: the file is what counts, so it is mapped again; private changes are saved with it."""

    types = ("numpy.memmap",)

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        survey.note_memory(memory_owner(obj), obj)
        return ()

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        import numpy as np

        path, mode = getattr(obj, "filename", None), getattr(obj, "mode", None)
        owner = memory_owner(obj)
        if path is None or mode not in ("r", "r+", "w+") or type(owner) is not type(obj):
            return np.asarray(obj).copy().__reduce_ex__(5)
        if owner is not obj:
            view = _view_of(obj, owner)
            if view is not None:
                return make_mapped_view, (type(obj), *view)
            pickler.remarks.add(_NO_LONGER_SHARED)
            return np.asarray(obj).copy().__reduce_ex__(5)
        state = os.stat(path)
        order = "C" if obj.flags.c_contiguous else "F"
        return map_array, (
            str(path),
            "r" if mode == "r" else "r+",
            obj.offset,
            obj.shape,
            obj.dtype,
            order,
            state.st_size,
        )


def map_array(path: str, mode: str, offset: int, shape: tuple[int, ...], dtype: Any, order: str, size: int) -> Any:
    """A file mapped again, if it is still that large."""
    import numpy as np

    if not Path(path).is_file() or Path(path).stat().st_size < size:
        return absent(f"the mapped file {path} is gone, or shorter than it was")
    return np.memmap(path, dtype, mode, offset, shape, order)  # type: ignore[call-overload]


def make_mapped_view(cls: Any, maker: Any, arguments: tuple[Any, ...]) -> Any:
    """A view of a mapped array, which knows its file as that does; of one that is gone, the same as of that."""
    import numpy as np

    owner = arguments[0]
    if not isinstance(owner, np.ndarray):
        return owner
    made = maker(*arguments).view(cls)
    vars(made).update(vars(owner))
    return made


class UniversalFunctions(Kind):
    """numpy.ufunc: by its name, which pickle would look for in all modules; one of Python by the function it calls."""

    types = ("numpy.ufunc",)

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return _called_by(obj)

    def shares(self, obj: Any) -> bool:
        return False

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        name = str(obj.__name__)
        for home in _HOMES_OF_UFUNCS:
            if getattr(sys.modules.get(home), name, None) is obj:
                pickler.note_package(home)
                return attribute, (home, name)
        called = _called_by(obj)
        return (make_ufunc, (called[0], obj.nin, obj.nout, obj.identity)) if called else NotImplemented


_HOMES_OF_UFUNCS = ("numpy", "scipy.special")
_OF_PYTHON = " (vectorized)"


def _called_by(ufunc: Any) -> list[Any]:
    """The function that numpy.frompyfunc was given."""
    own = ufunc.__name__.endswith(_OF_PYTHON)
    return [part for part in gc.get_referents(ufunc) if callable(part)][:1] if own else []


def make_ufunc(function: Any, inputs: int, outputs: int, identity: Any) -> Any:
    """As numpy.frompyfunc made it; without an identity it says None."""
    import numpy as np

    options = {} if identity is None else {"identity": identity}
    return np.frompyfunc(function, inputs, outputs, **options)


KINDS: tuple[Kind, ...] = (Arrays(), MappedArrays(), UniversalFunctions())
