"""A multiprocessing manager: its server process, proxies here and in a child, shared memory of its own, a barrier."""

import multiprocessing as mp
import sys
from multiprocessing.managers import SharedMemoryManager

import subject

COUNT = 1000


def child(numbers: "list[int]", names: "dict[str, int]", inbox: "mp.Queue[str]", block: str) -> None:
    from multiprocessing.shared_memory import SharedMemory

    memory = SharedMemory(block, track=False) if sys.version_info >= (3, 13) else SharedMemory(block)
    while (name := inbox.get()) != "end":
        names[name] = len(numbers)
        memory.buf[0] += 1
    memory.close()


def body() -> None:
    context = mp.get_context("fork")
    with context.Manager() as manager, SharedMemoryManager(ctx=context) as memories:
        numbers, names, inbox = manager.list(range(COUNT)), manager.dict(), manager.Queue()
        block = memories.SharedMemory(4096)
        block.buf[0] = 0
        process = context.Process(target=child, args=(numbers, names, inbox, block.name))
        process.start()
        inbox.put("before")
        while block.buf[0] != 1:
            pass
        inbox.put("meanwhile")
        subject.wait()
        numbers.append(7)
        inbox.put("after")
        inbox.put("end")
        process.join(20)
        subject.expect(process.exitcode == 0, f"the child's exit code is {process.exitcode}")
        subject.expect(list(names) == ["before", "meanwhile", "after"], f"what the child noted is {names}")
        subject.expect(names["after"] == COUNT + 1 and names["before"] == COUNT, f"its list was {names}")
        subject.expect(block.buf[0] == 3, f"the shared memory has {block.buf[0]}")


if __name__ == "__main__":
    subject.main(body)
