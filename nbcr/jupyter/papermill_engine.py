"""The papermill engine `nbcr`: what `nbcr execute` does, behind papermill's parameters, stores and reports.

``papermill in.ipynb out.ipynb --engine nbcr`` checkpoints the session after each cell. With ``resume=True``, or
NBCR_RESUME=1 in the environment of the command, a run that died goes on with the cell in which it did. It is never
assumed: whoever runs a notebook again may want it to read its data anew.
"""

from __future__ import annotations

import os
from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from papermill.iorw import load_notebook_node
from papermill.log import logger
from papermill.utils import merge_kwargs, remove_args

from nbcr.errors import NotPossible
from nbcr.jupyter.executing import Course
from nbcr.session import Store

_ERROR_TAG = "papermill-error-cell-tag"  # of cells that papermill puts into the output of a run that failed
_OURS = ("input_path", "timeout", "startup_timeout")


class NbcrEngine(NBClientEngine):  # type: ignore[misc]
    """`resume`: go on where an earlier run into the same output died. `store`: folder of the store."""

    @classmethod
    def execute_notebook(
        cls, nb: Any, kernel_name: str, output_path: str | None = None, resume: bool | None = None, **kwargs: Any
    ) -> Any:
        """Read the output of the earlier run, before papermill overwrites it."""
        wanted = os.environ.get("NBCR_RESUME", "0") not in ("", "0") if resume is None else resume
        if wanted and not output_path:
            raise NotPossible("there is no output to resume", hint="leave request_save_on_cell_execute on")
        before = _load(output_path) if wanted and output_path else None
        return super().execute_notebook(nb, kernel_name, output_path=output_path, before=before, **kwargs)

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        before: Any = None,
        store: str | None = None,
        start_timeout: float = 60,
        execution_timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """As papermill's own engine, with checkpoints between."""
        course = Course(str(nb_man.output_path or kwargs.get("input_path") or ""), Store(store), logger.warning)
        first = course.take_over(nb_man.nb, before) if before is not None else 0
        if before is not None and not first:
            logger.warning("%s holds no run to go on with: from the first cell", nb_man.output_path)
        options = merge_kwargs(
            remove_args(_OURS, **kwargs),
            timeout=execution_timeout if execution_timeout else kwargs.get("timeout"),
            startup_timeout=start_timeout,
            kernel_name=kernel_name,
            log=logger,
        )
        return _Client(nb_man, course, first, **options).execute()


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    def __init__(self, nb_man: Any, course: Course, first: int, **options: Any) -> None:
        super().__init__(nb_man, **options)
        self._course, self._first = course, first

    def papermill_execute_cells(self) -> None:
        """papermill's loop, from the first cell that is not done."""
        from nbclient.exceptions import CellExecutionError

        self._course.begin(self, self._first)
        for index in range(self._first, len(self.nb.cells)):
            cell = self.nb.cells[index]
            try:
                self.nb_man.cell_start(cell, index)
                self.execute_cell(cell, index)
                self._course.keep(self, self.nb, index)
            except CellExecutionError as error:
                self.nb_man.cell_exception(cell, cell_index=index, exception=error)
                return
            finally:
                self.nb_man.cell_complete(self.nb.cells[index], cell_index=index)
        self._course.unmark(self.nb)
        self.nb_man.save()
        self._course.forget()


def _load(path: str) -> Any:
    """The output of an earlier run, without what papermill added because it had failed; None: there is none."""
    try:
        found = load_notebook_node(path)
    except Exception:  # whatever the storage says: there is nothing to go on from
        return None
    found.cells = [cell for cell in found.cells if _ERROR_TAG not in cell.metadata.get("tags", ())]
    return found
