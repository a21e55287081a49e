/* Completions that nobody has fetched, around the ring's end. */
#include "../io_uring.h"

static struct ring ring;

static void spoil(void)
{
    ring_reap(&ring, 200);
    ring_prepare(&ring, 300);
    ring_enter(&ring, 1, 0);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    ring_open(&ring, 4, 8, 0);
    ring_turn(&ring, 6, 100);
    for (unsigned i = 0; i < 7; i++) {
        struct io_uring_sqe *sqe = ring_prepare(&ring, 200 + i);
        if (i == 3)
            sqe->opcode = IORING_OP_READ, sqe->fd = -1; /* fails */
        ring_enter(&ring, 1, 0);
    }
    subject_wait(spoil);
    EXPECT(*ring.cq_tail - *ring.cq_head == 7, "%u completions", *ring.cq_tail - *ring.cq_head);
    ring_prepare(&ring, 207);
    ring_enter(&ring, 1, 0);
    for (unsigned i = 0; i < 8; i++) {
        int result = ring_reap(&ring, 200 + i), wanted = i == 3 ? -EBADF : 0;
        EXPECT(result == wanted, "completion %u tells %d", i, result);
    }
    ring_turn(&ring, 30, 400);
    subject_pass();
}
