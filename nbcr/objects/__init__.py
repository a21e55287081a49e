"""Snapshots of a namespace's objects: what another host, another OS kernel or another Python can bring back.

    saving = save(namespace, place)      returns after a fork; a child writes the folder `place`
    saving.wait() -> Report              what became of each name: saved, recomputable, or lost, with culprit and reason
    load(place, namespace) -> Report     restored, recomputable or lost, name by name; drift of packages
    get(place, name)                     one variable; no other variable's bytes are read
    look(place) -> [VariableInfo]        names, types, shapes, sizes and reprs, without unpickling
    diff(a, b) -> [Change]               names added, removed, changed
    register_saver(type, save, load)     how objects of a type are saved; also by entry point `nbcr.savers`
    verify(place), fingerprint(place)    every byte read and compared; what a signature covers
    preload()                            import in idle time what the first save would have to

How the parts hang together, top to bottom:

    saving → forking → writer       one save: processes, then the steps of one snapshot; board: how far they are
    units                           names become units: pickled, limited, their culprits found; late: those that hung
    loading, looking                the way back
    sharing, pickling, unpickling   which names belong together; one unit's pickle, both directions; deep: in a thread
    culprits, fallback, describing  what to say about a name, what else to try
    kinds                           one room per kind of object, both directions in it
    standing, addresses, absent, sources    everybody's own, addresses, stand-ins for what cannot be made, code
    modules, patches, homes, surroundings, settings, libraries, shell   what does not belong to names alone
    blobs, blob_reader, index       files: FORMAT.md. Know bytes and names, no objects
    names, results                  the words they share
    here                            this process's own namespace

Everything is loaded on first use. A snapshot holds pickles: loading runs what is in it. `load` and `get`
refuse what does not belong to the user, and call `trust` with the fingerprint before anything is unpickled;
signatures are the store's matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbcr.objects.kinds.base import register_saver, unregister_saver
    from nbcr.objects.loading import fingerprint, get, load, verify
    from nbcr.objects.looking import diff, look
    from nbcr.objects.results import Change, Drift, Fate, Progress, Report, VariableInfo, Verdict
    from nbcr.objects.saving import Saving, preload, save

__all__ = [
    "Change",
    "Drift",
    "Fate",
    "Progress",
    "Report",
    "Saving",
    "VariableInfo",
    "Verdict",
    "diff",
    "fingerprint",
    "get",
    "load",
    "look",
    "preload",
    "register_saver",
    "save",
    "unregister_saver",
    "verify",
]

_HOMES = {
    **dict.fromkeys(("Change", "Drift", "Fate", "Progress", "Report", "VariableInfo", "Verdict"), "results"),
    **dict.fromkeys(("Saving", "preload", "save"), "saving"),
    **dict.fromkeys(("fingerprint", "get", "load", "verify"), "loading"),
    **dict.fromkeys(("diff", "look"), "looking"),
    **dict.fromkeys(("register_saver", "unregister_saver"), "kinds.base"),
}


def __getattr__(name: str) -> Any:
    """Load a public name from its home the first time it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'nbcr.objects' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"nbcr.objects.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
