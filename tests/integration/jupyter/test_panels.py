"""Panels of several notebooks on one store, in real Jupyter kernels, without a browser."""

from __future__ import annotations

import time

from tests.integration.jupyter.sessions import Jupyter, Stage

AGREE_S = 2.0
PATIENCE_S = 60.0
TEXTS = "[text.split('  —')[0].strip() for text, _ in panel.children[2].options]"


def test_two_panels_on_one_store_agree(stage: Stage) -> None:
    stage.environ["NBCR_PACK"] = "never"
    one, other = stage.start(), stage.start()
    for jupyter in (one, other):
        jupyter.client.run("import nbcr; panel = nbcr.panel()", PATIENCE_S)
    waits: list[float] = []
    while not waits or (min(waits) > AGREE_S and len(waits) < 8):  # a busy machine may be late a few times, not always
        name = f"number {len(waits)}"
        one.client.run(f"%checkpoint '{name}' --wait", PATIENCE_S)
        waits.append(agreement_s(other, f"• {name}"))
    assert min(waits) <= AGREE_S, waits
    agreement_s(one, f"▶ {name}")
    one.client.run(f"import nbcr.session.upkeep as u; u.tag('{name}', ['good'])")
    deadline = time.monotonic() + PATIENCE_S
    while "#good" not in other.client.value("panel.children[2].options[-1][0]"):
        assert time.monotonic() < deadline


def agreement_s(jupyter: Jupyter, name: str) -> float:
    """How long it takes until a panel shows what was just written."""
    begun = time.monotonic()
    while not any(text.endswith(name) for text in jupyter.client.value(TEXTS)):
        assert time.monotonic() < begun + PATIENCE_S
    return time.monotonic() - begun
