/* A ring of io_uring that has been used and rests: it works on from where it was. Sizes and flags by argument. */
#include "../io_uring.h"

static struct ring ring;

static void spoil(void)
{
    ring_turn(&ring, 5, 900);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    unsigned turns = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : 13;
    unsigned entries = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 0) : 8;
    unsigned completions = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 0) : 0;
    unsigned flags = argc > 5 ? (unsigned)strtoul(argv[5], NULL, 0) : 0;
    ring_open(&ring, entries, completions, flags);
    ring_turn(&ring, turns, 100);
    ring.sqes[entries - 1].user_data = 0x5ca1ab1e; /* what is in no request */
    unsigned head = *ring.sq_head, tail = *ring.cq_tail;
    subject_wait(spoil);
    EXPECT(*ring.sq_head == head && *ring.sq_tail == head, "requests: %u, %u", *ring.sq_head, *ring.sq_tail);
    EXPECT(*ring.cq_head == tail && *ring.cq_tail == tail, "completions: %u, %u", *ring.cq_head, *ring.cq_tail);
    EXPECT(ring.sqes[entries - 1].user_data == 0x5ca1ab1e, "the requests' memory differs");
    EXPECT(fcntl(ring.fd, F_GETFD) == FD_CLOEXEC, "the ring's descriptor is not close-on-exec");
    ring_turn(&ring, 3 * entries + 1, 500);
    int pipe_fds[2];
    char got[4] = "";
    MUST(pipe(pipe_fds));
    struct io_uring_sqe *sqe = ring_prepare(&ring, 1);
    sqe->opcode = IORING_OP_WRITE, sqe->fd = pipe_fds[1], sqe->addr = (uintptr_t) "abc", sqe->len = 3, sqe->off = -1;
    ring_enter(&ring, 1, 1);
    EXPECT(ring_reap(&ring, 1) == 3, "writing failed");
    sqe = ring_prepare(&ring, 2); /* has to wait, and is woken */
    sqe->opcode = IORING_OP_POLL_ADD, sqe->fd = pipe_fds[0], sqe->poll32_events = 1;
    ring_enter(&ring, 1, 1);
    EXPECT(ring_reap(&ring, 2) == 1, "polling failed");
    EXPECT(read(pipe_fds[0], got, 3) == 3 && !strcmp(got, "abc"), "read %s", got);
    ring_empty(&ring);
    subject_pass();
}
