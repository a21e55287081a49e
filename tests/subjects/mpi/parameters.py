"""Prints the calls that do not have the parameters that mpi4py's have, as their texts for help() say, and `done`.

python parameters.py
"""

import inspect
import re

from mpi4py import MPI

_HEAP_TYPE = 1 << 9  # made by Python
_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def wanted(text):
    """Of `Comm.send(self, obj: Any, dest: int, tag: int = 0) -> None`: obj, dest, tag."""
    match = re.match(r"[\w.]+\((.*)\)", (text or "").strip().splitlines()[0] if text else "")
    if match is None:
        return None
    flat = match[1]
    while re.search(r"\[[^][]*\]|\([^()]*\)", flat):
        flat = re.sub(r"\[[^][]*\]|\([^()]*\)", "", flat)
    names = [re.split("[:=]", each)[0].strip() for each in flat.split(",")]
    return [name for name in names if name not in ("self", "cls", "/", "")]


for ours in [each for each in vars(MPI).values() if isinstance(each, type)]:
    theirs = next((each for each in ours.__mro__ if not each.__flags__ & _HEAP_TYPE), object)
    for name in dir(theirs) if theirs not in (ours, object) else ():
        found = inspect.getattr_static(ours, name)
        found = found.__func__ if isinstance(found, (classmethod, staticmethod)) else found
        if name.startswith("_") or not inspect.isfunction(found):
            continue
        has = inspect.signature(found, follow_wrapped=False).parameters.values()
        names = [each.name for each in has if each.name not in ("self", "cls")]
        if not any(each.kind in _OPEN for each in has) and wanted(getattr(theirs, name).__doc__) not in (None, names):
            print(ours.__name__, name, names, wanted(getattr(theirs, name).__doc__))
print("done")
