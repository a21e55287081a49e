"""C memory and callbacks by ctypes, an mmap, a compression stream and a hash in the middle."""

import ctypes
import hashlib
import mmap
import zlib

import subject

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]


def body() -> None:
    size = 300000
    pointer = libc.malloc(size)
    content = bytes(i * 7 % 251 for i in range(size))
    ctypes.memmove(pointer, content, size)
    area = mmap.mmap(-1, 65536)
    area[:5] = b"in it"
    compress, digest = zlib.compressobj(), hashlib.sha256()
    packed = compress.compress(content[:100000])
    digest.update(content[:100000])
    order = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
    callback = order(lambda a, b: a[0] - b[0])

    def spoil() -> None:
        ctypes.memset(pointer, 0, size)
        area[:5] = b"spoil"

    subject.wait(spoil)
    subject.expect(ctypes.string_at(pointer, size) == content, "the C memory")
    subject.expect(area[:5] == b"in it", "the mmap")
    packed += compress.compress(content[100000:]) + compress.flush()
    subject.expect(zlib.decompress(packed) == content, "the compression stream")
    digest.update(content[100000:])
    subject.expect(digest.digest() == hashlib.sha256(content).digest(), "the hash")
    numbers = (ctypes.c_int * 5)(5, 3, 1, 4, 2)
    libc.qsort(numbers, 5, ctypes.sizeof(ctypes.c_int), callback)
    subject.expect(list(numbers) == [1, 2, 3, 4, 5], "the callback")
    libc.free(pointer)


subject.main(body)
