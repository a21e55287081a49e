/* A ring in steady use: requests of no effect, reads of a file, some at once and some by workers, checked one by one. */
#include "../io_uring.h"

static struct ring ring;
static unsigned char content[4096], got[4096];

/* A wait that is interrupted says how many requests were taken, as if it had ended. */
static int reap_when_there(uint64_t number)
{
    while (__atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE) == *ring.cq_head)
        if (syscall(SYS_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
            EXPECT(errno == EINTR, "waiting failed: %s", strerror(errno));
    return ring_reap(&ring, number);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    unsigned flags = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : 0;
    subject_fill(content, sizeof content, 9);
    int file = (int)MUST(open(subject_path("data"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    EXPECT(write(file, content, sizeof content) == sizeof content, "the file cannot be written");
    ring_open(&ring, 8, 0, flags);
    subject_announce("ready");
    for (uint64_t number = 1; access(subject_go, F_OK) != 0; number += 3) {
        unsigned at = (unsigned)(number * 37 % 4000);
        ring_prepare(&ring, number);
        ring_enter(&ring, 1, 0);
        EXPECT(reap_when_there(number) == 0, "request %lu failed", (long)number);
        for (unsigned by_worker = 0; by_worker < 2; by_worker++) {
            memset(got, 0, sizeof got);
            struct io_uring_sqe *sqe = ring_prepare(&ring, number + 1 + by_worker);
            sqe->opcode = IORING_OP_READ, sqe->fd = file, sqe->addr = (uintptr_t)got, sqe->len = 90, sqe->off = at;
            sqe->flags = by_worker ? IOSQE_ASYNC : 0;
            ring_enter(&ring, 1, 1);
            int result = reap_when_there(number + 1 + by_worker);
            EXPECT(result == 90 && !memcmp(got, content + at, 90), "reading at %u told %d", at, result);
        }
    }
    MUST(unlink(subject_path("data")));
    ring_empty(&ring);
    subject_pass();
}
