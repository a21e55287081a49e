/* Registered files and buffers, with empty places among them. */
#include "../io_uring.h"
#include <sys/socket.h>
#include <sys/uio.h>

static struct ring ring;

static int transfer(unsigned opcode, int file, void *at, unsigned size, unsigned buffer, uint64_t offset)
{
    struct io_uring_sqe *sqe = ring_prepare(&ring, 7);
    sqe->opcode = (unsigned char)opcode, sqe->flags = IOSQE_FIXED_FILE, sqe->fd = file;
    sqe->addr = (uintptr_t)at, sqe->len = size, sqe->off = offset, sqe->buf_index = (unsigned short)buffer;
    ring_enter(&ring, 1, 1);
    return ring_reap(&ring, 7);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int ends[2], prot = PROT_READ | PROT_WRITE;
    bool issuer = argc > 2;
    char *area = MUST_MAP(mmap(NULL, 1 << 18, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)), got[100] = "";
    subject_fill(area, 1 << 18, 5);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    int file = (int)MUST(open(subject_path("data"), O_RDWR | O_CREAT, 0600));
    ring_open(&ring, 8, 0, issuer ? IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN : 0);
    struct iovec buffers[] = {{area + 100, 5000}, {NULL, 0}, {area + 70000, 100000}};
    int files[] = {ends[0], -1, file};
    MUST(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES, files, 3));
    MUST(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, buffers, 3));
    EXPECT(transfer(IORING_OP_WRITE_FIXED, 2, area + 70000, 90, 2, 0) == 90, "writing failed");
    subject_wait(NULL);
    EXPECT_FILLED(area, 1 << 18, 5, "memory");
    EXPECT(transfer(IORING_OP_READ_FIXED, 2, area + 100, 90, 0, 0) == 90, "reading failed");
    EXPECT(!memcmp(area + 100, area + 70000, 90), "what was read is not where it belongs");
    EXPECT(transfer(IORING_OP_WRITE_FIXED, 0, area + 70000, 90, 2, -1) == 90, "sending failed");
    EXPECT(read(ends[1], got, 90) == 90 && !memcmp(got, area + 70000, 90), "the socket got something else");
    EXPECT(transfer(IORING_OP_WRITE, 1, got, 1, 0, 0) == -EBADF, "there is a file where none was");
    EXPECT(transfer(IORING_OP_WRITE_FIXED, 2, got, 1, 1, 0) == -EFAULT, "there is a buffer where none was");
    MUST(unlink(subject_path("data")));
    subject_pass();
}
