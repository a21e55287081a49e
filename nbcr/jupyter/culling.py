"""Jupyter's servers cull idle Jupyter kernels (`MappingKernelManager.cull_idle_timeout`): each is kept before it ends.

A manager decides for itself who is idle, and then calls its own `shutdown_kernel`, as it does for a user who wants a
Jupyter kernel to be shut down: that one is not kept. So both methods of the one manager are wrapped: a shutdown within
the judging of an idle Jupyter kernel is a culling. A session that cannot be kept is not culled, unless an operator
prefers that; nor is one in which somebody has begun to work meanwhile.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from nbcr.jupyter import errands, kept

_MARK = "_nbcr_minds_culling"


@dataclass(frozen=True)
class Rules:
    """How it is done."""

    timeout_s: float = 120.0
    keep: int = 2  # of each notebook
    unkept: bool = False  # cull also what could not be kept


def mind(manager: Any, rules: Rules) -> bool:
    """From now on keep what `manager` culls. False where it culls nothing, or somebody minds it already."""
    if getattr(manager, "cull_kernel_if_idle", None) is None or getattr(manager, _MARK, False):
        return False
    judge, shut_down = manager.cull_kernel_if_idle, manager.shutdown_kernel
    judged: ContextVar[str | None] = ContextVar("judged", default=None)

    async def cull_kernel_if_idle(kernel_id: str) -> None:
        token = judged.set(kernel_id)
        try:
            await _ended(judge(kernel_id))
        finally:
            judged.reset(token)

    async def shutdown_kernel(kernel_id: str, *args: Any, **options: Any) -> Any:
        if judged.get() == kernel_id and not await _may_go(manager, kernel_id, rules):
            return None
        return await _ended(shut_down(kernel_id, *args, **options))

    manager.cull_kernel_if_idle, manager.shutdown_kernel = cull_kernel_if_idle, shutdown_kernel
    setattr(manager, _MARK, True)
    return True


async def _may_go(manager: Any, kernel_id: str, rules: Rules) -> bool:
    """Keep a Jupyter kernel; whether it may be ended now."""
    log, before = manager.log, _use_of(manager, kernel_id)
    if before[0] == "dead":
        return True
    order = {
        "op": "keep",
        "reason": kept.CULLED,
        "connection_file": str(manager.get_kernel(kernel_id).connection_file),
        "deadline_s": rules.timeout_s / 2,
        "keep": rules.keep,
    }
    answer = await errands.ask(order, timeout_s=rules.timeout_s)
    if "error" in answer:
        then = "culled all the same" if rules.unkept else "not culled"
        log.warning("nbcr: kernel %s cannot be kept and is %s: %s", kernel_id, then, answer["error"])
        return rules.unkept
    if "nothing" in answer:
        return True
    log.info("nbcr: kernel %s (%s) is kept as %s", kernel_id, answer["notebook"] or "no notebook", answer["id"])
    if kernel_id not in manager:  # somebody has shut it down meanwhile
        return False
    now = _use_of(manager, kernel_id)
    if "changed" in answer or now[1] > before[1] or (now[0] == "busy" and before[0] != "busy"):
        log.info("nbcr: kernel %s is not culled: it is in use again", kernel_id)
        return False
    return True


async def _ended(call: Any) -> Any:
    """A manager's methods may be coroutines, or not."""
    return await call if inspect.isawaitable(call) else call


def _use_of(manager: Any, kernel_id: str) -> tuple[str, int]:
    model = manager.kernel_model(kernel_id)
    return str(model["execution_state"]), int(model["connections"])
