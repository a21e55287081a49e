"""torch tensors: views stay views of one storage, whose memory goes out of band; so do arrays of numpy that look at it
(``tensor.numpy()``), and tensors that look at an array (``torch.from_numpy(array)``).

Tensorflow's variables by value.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey


class Tensors(Kind):
    """Dense tensors in main memory, and parameters. torch pickles all others itself, copying what they share."""

    types = ("torch.Tensor",)

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        if _is_plain(obj):
            survey.note_address(obj.untyped_storage().data_ptr(), obj)
        return [obj.__dict__, obj.grad if obj.is_leaf else None]

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        pickler.note_package("torch")
        if not obj.is_leaf:  # torch makes it one that nothing was calculated for
            pickler.remarks.add("its tensor comes back without what it was calculated from: backward() ends at it")
            return NotImplemented
        if not _is_plain(obj):
            return NotImplemented
        storage = obj.untyped_storage()
        pickler.context.is_shared(storage)  # or it is not known who else has this memory
        key = ("storage", storage.data_ptr())
        held = pickler.stand_ins.get(key) or pickler.stand_ins.setdefault(key, Storage(_memory_of(storage, pickler)))
        window = (obj.dtype, obj.storage_offset(), tuple(obj.shape), obj.stride())
        state = (obj.requires_grad, obj.grad, obj.__dict__)
        return make_tensor, (type(obj), held, *window), state, None, None, set_tensor_state


def _is_plain(tensor: Any) -> bool:
    import torch

    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and not tensor.is_conj()
        and not tensor.is_neg()
        and tensor.untyped_storage().nbytes() > 0
    )


def address_of_storage(owner: Any) -> int | None:
    """Where the memory of the tensor begins that numpy names as the owner of an array; None: it is none of those."""
    if "torch" not in sys.modules or type(owner).__module__.partition(".")[0] != "torch" or not _is_plain(owner):
        return None
    return int(owner.untyped_storage().data_ptr())


def memory_shared_with(array: Any, owner: Any, pickler: UnitPickler) -> tuple[Any, int] | None:
    """The array that is pickled for memory of `owner`, a tensor, if others look at it, too; and its address."""
    address = address_of_storage(owner)
    if address is None or not pickler.context.is_shared_at(address):
        return None
    memory = _memory_of(owner.untyped_storage(), pickler)
    return None if memory is array else (memory, address)


def _memory_of(storage: Any, pickler: UnitPickler) -> Any:
    """The one array that is pickled for this memory: the session's own where the tensor was made of an array."""
    import torch

    address = storage.data_ptr()
    owner = pickler.context.owners.get(-address)
    if owner is not None and owner.nbytes >= storage.nbytes() and owner.flags.writeable and owner.flags.forc:
        return owner
    key = ("memory", address)
    if key not in pickler.stand_ins:
        pickler.stand_ins[key] = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
    return pickler.stand_ins[key]


class Storage:
    """Pickled in place of the memory that several tensors look at."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def __reduce__(self) -> Reduction:
        return make_storage, (self.memory,)


def make_storage(memory: Any) -> Any:
    """The storage around the bytes of an array."""
    import torch

    return torch.from_numpy(memory).untyped_storage()


def make_tensor(
    cls: Any, storage: Any, dtype: Any, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
) -> Any:
    """A tensor that looks into `storage`."""
    import torch

    with torch.no_grad():
        made = torch.empty(0, dtype=dtype).set_(storage, offset, shape, stride)
    return made if cls is torch.Tensor else cls(made, requires_grad=made.is_floating_point())


def set_tensor_state(tensor: Any, state: tuple[bool, Any, dict[str, Any]]) -> None:
    """Give a tensor its gradient and attributes."""
    requires_grad, gradient, attributes = state
    tensor.requires_grad_(requires_grad)
    tensor.grad = gradient
    tensor.__dict__.update(attributes)


class Generators(Kind):
    """torch.Generator: seed and position."""

    types = ("torch._C.Generator",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        pickler.note_package("torch")
        return make_generator, (str(obj.device), obj.get_state().numpy())


def make_generator(device: str, state: Any) -> Any:
    """A generator of random numbers in this state."""
    import torch

    made = torch.Generator(device)
    made.set_state(torch.from_numpy(state.copy()))
    return made


class Variables(Kind):
    """tensorflow.Variable: its value, name and whether it is trained."""

    types = ("tensorflow.python.ops.resource_variable_ops.BaseResourceVariable",)

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return ()

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        pickler.note_package("tensorflow")
        return make_variable, (obj.numpy(), obj.name.partition(":")[0], obj.trainable)


def make_variable(value: Any, name: str, trainable: bool) -> Any:
    """A variable with this value."""
    import tensorflow as tf

    return tf.Variable(value, name=name, trainable=trainable)


KINDS: tuple[Kind, ...] = (Tensors(), Generators(), Variables())
