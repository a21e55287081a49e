"""Loaded by the interpreters of a job that `nbcr run` started; then the sitecustomize that would have been loaded."""

import os
import sys


def _ours() -> None:
    sys.path.append(os.environ.get("NBCR_JOB_ROOT", ""))  # behind all others: the program may have an nbcr of its own
    from nbcr.mpi import entering

    entering.begin()


def _theirs() -> None:
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path[:] = [each for each in sys.path if os.path.abspath(each or ".") != here]  # noqa: PTH100
    ours = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        if ours is not None:
            sys.modules["sitecustomize"] = ours


_ours()
_theirs()
