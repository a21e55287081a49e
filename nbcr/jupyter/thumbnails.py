"""The last figure that a session has shown, small enough to be kept with each of its checkpoints.

Whatever is displayed as image/png passes a hook and is remembered as it is; it is made small once, when a checkpoint is
taken. That needs Pillow, which is used where the user's own imports (matplotlib's, say) have loaded it: otherwise only
what is small already is kept.
"""

from __future__ import annotations

import base64
import io
import sys
from typing import Any

from nbcr.store.entry import MOST_THUMBNAIL_BYTES

_SIZE = (240, 160)
_MOST_SHOWN = 8 << 20  # characters of what is remembered
_MOST_PIXELS = 40_000_000
_COLORS = 64


class LastFigure:
    """Of one session."""

    def __init__(self, shell: Any) -> None:
        self._shown: str | None = None
        self._small: str | None = None
        self._publishers = [p for p in (shell.display_pub, shell.displayhook) if hasattr(p, "register_hook")]
        for publisher in self._publishers:
            publisher.register_hook(self.hear)

    def remove(self) -> None:
        """Listen no more. In the thread that made it."""
        for publisher in self._publishers:
            publisher.unregister_hook(self.hear)

    def hear(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message with something displayed, which goes on as it is."""
        data = message.get("content", {}).get("data")
        png = data.get("image/png") if isinstance(data, dict) else None
        if isinstance(png, str) and len(png) <= _MOST_SHOWN:
            self._shown, self._small = png, None
        return message

    def thumbnail(self) -> str | None:
        """A small PNG, as base64."""
        if self._shown is not None:
            self._small, self._shown = _shrunk(self._shown), None
        return self._small


def _shrunk(shown: str) -> str | None:
    try:
        png = base64.b64decode(shown)
        small = _scaled(png) if "PIL.Image" in sys.modules else png
    except Exception:  # no PNG, or a strange one: a checkpoint does not fail for want of its picture
        return None
    return base64.b64encode(small).decode() if len(small) <= MOST_THUMBNAIL_BYTES else None


def _scaled(png: bytes) -> bytes:
    image: Any = sys.modules["PIL.Image"]
    with image.open(io.BytesIO(png), formats=("PNG",)) as found:
        if found.width * found.height > _MOST_PIXELS:
            raise ValueError("too large")
        small = found.convert("RGB" if found.mode not in ("RGBA", "LA", "P") else "RGBA")
    small.thumbnail(_SIZE)
    made = io.BytesIO()
    small.quantize(_COLORS, method=2).save(made, "PNG", optimize=True)  # by octree, which keeps transparency
    return made.getvalue()


_last: LastFigure | None = None


def load(ip: Any) -> None:
    """Remember from now on what `ip` shows."""
    global _last
    unload()
    _last = LastFigure(ip)


def unload() -> None:
    """Forget it."""
    global _last
    if _last is not None:
        _last.remove()
        _last = None


def current() -> str | None:
    """The last figure of this session."""
    return None if _last is None else _last.thumbnail()
