"""Code objects as bytes for the same Python, with the source beside them for every other.

Byte code is another in each minor version. What was typed into a notebook has its source in `linecache`; the
outermost statement around a piece of code is kept, which can be compiled anywhere on its own, and the piece
is found in it again by its qualified name, its line, and what it is made of.
"""

from __future__ import annotations
import __future__

import ast
import functools
import importlib.util
import linecache
import marshal
import operator
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

_FUTURE_FLAGS = functools.reduce(  # what `from __future__ import …` sets in co_flags
    operator.or_,
    (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names if name != "nested_scopes"),
)
# Without references between constants the bytes depend on the code alone: the same function gives the same
# digest every time.
_MARSHAL_VERSION = 2

Packed = tuple[bytes, bytes, str, str, int, tuple[str, ...], int, int]


class ForeignCode(Exception):
    """Byte code of another Python, and no source to compile."""


def packed(code: CodeType) -> Packed:
    """`code` taken apart: magic number, bytes, source, and what finds it in there."""
    try:
        data = marshal.dumps(code, _MARSHAL_VERSION)
    except ValueError:  # constants that this version of the format does not know
        data = marshal.dumps(code)
    source, first_line = _statement_around(code)
    names = (*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount], "/", *code.co_names)
    return (
        importlib.util.MAGIC_NUMBER, data, source, code.co_qualname, code.co_firstlineno, names, first_line,
        code.co_flags & _FUTURE_FLAGS,
    )  # fmt: skip


def unpacked(
    magic: bytes,
    data: bytes,
    source: str,
    qualname: str,
    line: int,
    names: tuple[str, ...],
    first_line: int,
    flags: int,
) -> CodeType:
    """The code object again; tracebacks and `inspect.getsource` find its source. Raises ForeignCode."""
    if magic == importlib.util.MAGIC_NUMBER:
        code: CodeType = marshal.loads(data)
        _make_known(code.co_filename, source, first_line)
        return code
    here = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    if not source:
        raise ForeignCode(f"{qualname} was compiled by another Python than {here}, and its source is not known")
    padded = "\n" * (first_line - 1) + source
    filename = f"<{qualname}>"
    whole = compile(padded, filename, "exec", flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    same_name = [code for code in _all_code(whole) if code.co_qualname == qualname]
    found = [code for code in same_name if code.co_firstlineno == line] or same_name
    alike = [code for code in found if _arguments(code) == names[: names.index("/")]]
    exact = [code for code in alike if code.co_names == names[names.index("/") + 1 :]]
    for candidates in (found, alike, exact):
        if len(candidates) == 1:
            _make_known(filename, source, first_line)
            return candidates[0]
    raise ForeignCode(f"{qualname} was compiled by another Python than {here}, and its source names it more than once")


def _make_known(filename: str, source: str, first_line: int) -> None:
    """Put the source of a cell of another life where its readers look. What is known of that cell already stays."""
    if not source or Path(filename).exists():
        return
    known = linecache.cache.get(filename)
    lines = list(known[2]) if known is not None and len(known) == 4 else []
    own = source.splitlines(keepends=True)
    begin, end = first_line - 1, first_line - 1 + len(own)
    lines += ["\n"] * (end - len(lines))
    if not any(line.strip() for line in lines[begin:end]):
        lines[begin:end] = own
        # Without a time it is not looked for on the disk.
        linecache.cache[filename] = sum(map(len, lines)), None, lines, filename


def _arguments(code: CodeType) -> tuple[str, ...]:
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _all_code(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _all_code(constant)


def _statement_around(code: CodeType) -> tuple[str, int]:
    """Source of the outermost statement that holds `code`, and the line it begins at."""
    try:
        lines = linecache.getlines(code.co_filename)
        for begin, end in _statements("".join(lines)):
            if begin <= code.co_firstlineno <= end:
                return "".join(lines[begin - 1 : end]), begin
    except Exception:  # whatever a file that only looks like source may do to us
        pass
    return "", 1


@functools.lru_cache(maxsize=64)
def _statements(source: str) -> list[tuple[int, int]]:
    found = []
    for node in ast.parse(source).body:
        decorators: list[Any] = getattr(node, "decorator_list", [])
        begin = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        found.append((begin, node.end_lineno or node.lineno))
    return found
