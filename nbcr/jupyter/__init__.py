"""What users of Jupyter touch: magics, the handler that takes ipykernel through checkpoints, finding
Jupyter kernels.

    __init__     load, unload, start_service
    magics       %checkpoint, %restart, %checkpoints
    magics_auto  %nbcr auto, %undo, %%checkpoint          parsing    their arguments
    handler      the handler; one file for each thing it takes care of:
    living         the running ipykernel's parts and whose they are
    gates          what it sends            requests, sieve  what it is asked
    running        whose turn it is         subscribers  who listens
    rekey          where it serves          identity     who it is
    ticking        when the image was taken links        its clients' connections
    history, widgets, thumbnails
    questions      what it had asked        parting      nothing that is on its way is lost
    subshells      those of the present
    keeping      traits: which checkpoints stay
    finding      targets that a user names  wires, servers, listening  whom it asks
    attach       loading nbcr from outside  attached         its part inside
    branching    a checkpoint beside the session, in a new Jupyter kernel
    rolling      the variables of another Jupyter kernel, rolled back
    executing    notebooks without a browser                 papermill_engine    … for papermill
    kernelspec   a specification for Jupyter kernels that come back           provisioner      … and who brings them
    serverextension  sessions that outlive a Jupyter server: culling, kept (what it kept), errands (processes for it)
"""

from __future__ import annotations

from typing import Any

__all__ = ["load", "start_service", "stop_service", "unload"]

_magics: Any = None


def load(ip: Any) -> None:
    """``%load_ext nbcr``: magics, checkpoint thread, handler."""
    global _magics
    from nbcr.jupyter import keeping

    keeping.apply(ip)
    start_service()
    if getattr(ip, "kernel", None) is not None:
        from nbcr.jupyter import thumbnails

        thumbnails.load(ip)
    from nbcr.jupyter.magics import load as load_magics

    _magics = load_magics(ip)


def unload(ip: Any) -> None:
    """``%unload_ext nbcr``: take away all that `load` brought."""
    global _magics
    if _magics is not None:
        from nbcr.jupyter.magics import unload as unload_magics

        unload_magics(ip, _magics)
        _magics = None
    from nbcr.jupyter import thumbnails

    thumbnails.unload()
    stop_service()


def start_service() -> None:
    """Checkpoint thread and handler, without magics: what a request from outside needs. Safe to repeat."""
    from nbcr.handlers import registry
    from nbcr.jupyter.handler import current
    from nbcr.session import namespaces
    from nbcr.session.service import start

    handler = current()
    if handler is not None:
        registry.register(handler)
        namespaces.cells_run_in(handler.context_of_cells)
    start()


def stop_service() -> None:
    """Take the handler and the checkpoint thread away."""
    from nbcr.handlers import registry
    from nbcr.jupyter.handler import current
    from nbcr.session.service import stop

    stop()
    handler = current()
    if handler is not None:
        registry.remove(handler)
