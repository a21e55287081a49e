"""Images that Pillow has opened: their pixels, without the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler


class OpenedImages(Kind):
    """What `PIL.Image.open` returns. It keeps its file open for as long as there are frames to come."""

    types = ("PIL.ImageFile.ImageFile",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        obj.load()
        if getattr(obj, "is_animated", False):
            pickler.remarks.add("its file is not open any more: of its frames only the one it showed comes back")
        return NotImplemented


KINDS: tuple[Kind, ...] = (OpenedImages(),)
