"""dill, for a name that our pickler cannot save: it knows a few types more.

What we refuse, it may not save either.
"""

from __future__ import annotations

import io
import time
from typing import Any

from nbcr.objects.kinds.base import CannotSave
from nbcr.objects.pickling import PROTOCOL, Context

_LONGEST_S = 5.0


def dumped(value: Any, context: Context, why: BaseException) -> bytes | None:
    """`value` as dill pickles it; None where it cannot, or must not."""
    if isinstance(why, CannotSave | RecursionError | MemoryError):
        return None
    try:
        import dill

        until = time.monotonic() + _LONGEST_S

        class Checked(dill.Pickler):  # type: ignore[misc]
            def save(self, obj: Any, save_persistent_id: bool = True) -> None:
                kind = context.kinds.kind_of(type(obj))
                if kind is not None and kind.refuses:
                    raise CannotSave("dill is not asked about it")
                if time.monotonic() > until:
                    raise TimeoutError
                super().save(obj, save_persistent_id)

        file = io.BytesIO()
        Checked(file, protocol=PROTOCOL).dump(value)
        return file.getvalue()
    except Exception:
        return None


def loaded(data: bytes) -> Any:
    """What `dumped` saved."""
    import dill

    return dill.loads(data)
