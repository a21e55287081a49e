"""An asyncio loop: sleeping and waiting tasks, a TCP server with a client, a subprocess-free executor."""

import asyncio
import os

import subject


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()


async def life() -> None:
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"before\n")
    subject.expect(await reader.readline() == b"BEFORE\n", "setting up")
    event, done = asyncio.Event(), []

    async def waiter() -> None:
        await event.wait()
        done.append("waited")

    async def sleeper() -> None:
        await asyncio.sleep(0.3)
        done.append("slept")

    tasks = [asyncio.create_task(waiter()), asyncio.create_task(sleeper())]
    subject.announce("ready")
    while not os.access(subject.path("go"), os.F_OK):
        await asyncio.sleep(0.002)
    writer.write(b"after\n")
    answer = await asyncio.wait_for(reader.readline(), 10)
    subject.expect(answer == b"AFTER\n", f"the server answers {answer!r}")
    second_reader, second_writer = await asyncio.open_connection(*address)
    second_writer.write(b"new\n")
    answer = await asyncio.wait_for(second_reader.readline(), 10)
    subject.expect(answer == b"NEW\n", f"a new connection gets {answer!r}")
    event.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 10)
    subject.expect(sorted(done) == ["slept", "waited"], f"the tasks did {done}")
    subject.expect(await loop.run_in_executor(None, lambda: 5) == 5, "the executor")
    for stream in (writer, second_writer):
        stream.close()
        await stream.wait_closed()
    server.close()


subject.main(lambda: asyncio.run(life()))
