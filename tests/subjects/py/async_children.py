"""asyncio with processes of its own: one in a dialogue by pipes, a shell pipeline under way, one that has ended."""

import asyncio
import sys

import subject

ECHO = "import sys\nfor line in sys.stdin: print('heard', line.strip(), flush=True)"


async def ask(process: asyncio.subprocess.Process, word: str) -> str:
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{word}\n".encode())
    await process.stdin.drain()
    return (await asyncio.wait_for(process.stdout.readline(), 20)).decode()


async def wait_in_thread() -> None:
    await asyncio.get_running_loop().run_in_executor(None, subject.wait)


async def dialogue() -> None:
    pipe = asyncio.subprocess.PIPE
    echo = await asyncio.create_subprocess_exec(sys.executable, "-c", ECHO, stdin=pipe, stdout=pipe)
    shell = await asyncio.create_subprocess_shell("cat | tr a-z A-Z | cat", stdin=pipe, stdout=pipe)
    ended = await asyncio.create_subprocess_shell("exit 3")
    subject.expect(await ended.wait() == 3, "the status of one that has ended")
    before = await ask(echo, "one")
    assert shell.stdin
    assert shell.stdout
    shell.stdin.write(b"half a line, ")
    timer = asyncio.create_task(asyncio.sleep(3600))
    waiting = asyncio.create_task(echo.wait())
    await wait_in_thread()
    subject.expect((before, await ask(echo, "two")) == ("heard one\n", "heard two\n"), "the dialogue")
    shell.stdin.write(b"and its end\n")
    shell.stdin.close()
    said = await asyncio.wait_for(shell.stdout.read(), 20)
    subject.expect(said == b"HALF A LINE, AND ITS END\n", f"the pipeline says {said!r}")
    subject.expect(await asyncio.wait_for(shell.wait(), 20) == 0, "the pipeline's status")
    subject.expect(not timer.done() and not waiting.done(), "what had not happened has")
    timer.cancel()
    echo.terminate()
    subject.expect(await asyncio.wait_for(waiting, 20) == -15, "the end of a child is not told")


subject.main(lambda: asyncio.run(dialogue()))
