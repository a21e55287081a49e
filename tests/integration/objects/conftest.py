"""Two real Jupyter kernels.

One in which cases are made, saved and spoiled, and a fresh one in which they are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.jupyter.sessions import Jupyter, Stage
from tests.support import User, tracked_processes

HELPER = "limit = 5\ndef doubled():\n    return 2 * limit\n"


@pytest.fixture(scope="module")
def kernels(ourselves: User, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Jupyter, Jupyter]]:
    """Started once: the cases do not disturb each other, and starting takes longer than all of them."""
    folder: Path = tmp_path_factory.mktemp("objects")
    (folder / "helper_of_cases.py").write_text(HELPER)
    with tracked_processes() as processes:
        stage = Stage(ourselves, folder, processes)
        stage.environ["NBCR_TEST_FOLDER"] = str(folder)
        pair = stage.start(), stage.start()
        for jupyter in pair:
            jupyter.client.run("from nbcr import objects as _nbcr_objects; _nbcr_objects.preload()")
        yield pair
        stage.close()
