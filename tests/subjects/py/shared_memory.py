"""multiprocessing.shared_memory, by name, with its resource tracker."""

from multiprocessing import shared_memory

import subject


def body() -> None:
    memory = shared_memory.SharedMemory(create=True, size=100000)
    content = bytes(i * 3 % 253 for i in range(100000))
    memory.buf[:100000] = content

    def spoil() -> None:
        memory.buf[:10] = bytes(10)

    subject.wait(spoil)
    subject.expect(bytes(memory.buf[:100000]) == content, "the content")
    other = shared_memory.SharedMemory(name=memory.name)
    other.buf[5] = 77
    subject.expect(memory.buf[5] == 77, "the name leads to other memory")
    other.close()
    memory.close()
    memory.unlink()


subject.main(body)
