"""What `nbcr execute` does for a client of nbclient."""

from __future__ import annotations

import asyncio
import select
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.session import Session

from nbcr.jupyter.executing import look_again_after_sending


def test_a_reply_that_arrives_while_something_is_sent_is_heard() -> None:
    """As a widget that captures output sends while the reply of its cell is waited for."""

    async def heard() -> bool:
        context, session = zmq.asyncio.Context(), Session(key=b"k")
        kernel: Any = zmq.Context.shadow(context.underlying).socket(zmq.PAIR)
        mine = context.socket(zmq.PAIR)
        try:
            port = kernel.bind_to_random_port("tcp://127.0.0.1")
            mine.connect(f"tcp://127.0.0.1:{port}")
            channel = AsyncZMQSocketChannel(mine, session)
            look_again_after_sending(channel)
            channel.send(session.msg("hello"))
            assert kernel.recv_multipart()
            waiting = asyncio.ensure_future(channel.get_msg())
            for _ in range(20):  # turns: then it waits, and hears nothing before the next
                await asyncio.sleep(0)
            session.send(kernel, "execute_reply")
            assert select.select([mine.get(zmq.FD)], [], [], 10)[0]
            channel.send(session.msg("comm_msg"))
            assert kernel.recv_multipart()
            done, _ = await asyncio.wait([waiting], timeout=10)
            waiting.cancel()
            return bool(done)
        finally:
            mine.close(0)
            kernel.close(0)
            context.term()

    assert asyncio.run(heard())
