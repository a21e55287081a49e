"""nbclient against a Jupyter kernel that somebody else started."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient


def run_against(runner: Any, connection_file: Path) -> None:
    """Execute a NotebookClient's cells one by one, as papermill does, over an existing connection."""

    async def execute() -> None:
        client = AsyncKernelClient(connection_file=str(connection_file))
        client.load_connection_file()
        client.start_channels(
            hb=False
        )  # it is asked only who has no manager: one late beat of a busy machine is no death
        try:
            await client.wait_for_ready(timeout=30)
            runner.kc = client
            runner.reset_execution_trackers()
            for index, cell in enumerate(runner.nb.cells):
                await runner.async_execute_cell(cell, index)
        finally:
            client.stop_channels()

    runner.km = _Alive()
    asyncio.run(execute())


class _Alive:
    """As much of a kernel manager as NotebookClient asks for while a cell runs."""

    async def is_alive(self) -> bool:
        return True
