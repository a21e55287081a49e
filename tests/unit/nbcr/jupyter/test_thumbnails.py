"""The last figure that a session has shown: remembered as it passes, made small once, never in anybody's way."""

from __future__ import annotations

import base64
import io
import random
import sys
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from nbcr.jupyter import thumbnails
from nbcr.store.entry import MOST_THUMBNAIL_BYTES


class Publisher:
    """As ipykernel's: hooks see each message."""

    def __init__(self) -> None:
        self.hooks: list[Callable[[dict[str, Any]], dict[str, Any] | None]] = []

    def register_hook(self, hook: Any) -> None:
        self.hooks.append(hook)

    def unregister_hook(self, hook: Any) -> None:
        self.hooks.remove(hook)

    def show(self, **data: Any) -> None:
        message = {"content": {"data": data}}
        for hook in self.hooks:
            assert hook(message) is message


class Shell:
    def __init__(self) -> None:
        self.display_pub, self.displayhook = Publisher(), Publisher()


def png(width: int, height: int, mode: str = "RGB") -> str:
    noise = random.Random(5).randbytes(width * height * len(mode))
    made = io.BytesIO()
    Image.frombytes(mode, (width, height), noise).save(made, "PNG")
    return base64.b64encode(made.getvalue()).decode()


def opened(small: str | None) -> Image.Image:
    assert small is not None
    raw = base64.b64decode(small)
    assert len(raw) <= MOST_THUMBNAIL_BYTES
    return Image.open(io.BytesIO(raw))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_a_large_figure_is_made_small_and_keeps_its_shape(mode: str) -> None:
    shell = Shell()
    last = thumbnails.LastFigure(shell)
    shell.display_pub.show(**{"image/png": png(480, 160, mode)})
    assert opened(last.thumbnail()).size == (240, 80)
    assert last.thumbnail() == last.thumbnail()


def test_the_last_one_counts_from_wherever_it_came() -> None:
    shell = Shell()
    last = thumbnails.LastFigure(shell)
    assert last.thumbnail() is None
    shell.display_pub.show(**{"image/png": png(30, 30)})
    shell.displayhook.show(**{"image/png": png(20, 10)})
    shell.display_pub.show(**{"text/plain": "no figure"})
    assert opened(last.thumbnail()).size == (20, 10)
    last.remove()
    shell.display_pub.show(**{"image/png": png(5, 5)})
    assert opened(last.thumbnail()).size == (20, 10)
    assert shell.display_pub.hooks == shell.displayhook.hooks == []


@pytest.mark.parametrize("strange", ["", "no base64 !", base64.b64encode(b"no PNG at all").decode(), 7, None])
def test_what_is_no_figure_harms_nothing(strange: Any) -> None:
    shell = Shell()
    last = thumbnails.LastFigure(shell)
    shell.display_pub.show(**{"image/png": strange})
    assert last.thumbnail() is None
    assert last.hear({"content": {}}) == {"content": {}}
    assert last.hear({}) == {}


def test_without_pillow_only_what_is_small_already_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "PIL.Image")
    shell = Shell()
    last = thumbnails.LastFigure(shell)
    small = png(20, 20)
    shell.display_pub.show(**{"image/png": small})
    assert last.thumbnail() == small
    shell.display_pub.show(**{"image/png": png(480, 160)})
    assert last.thumbnail() is None
