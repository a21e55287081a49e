/* Requests that are prepared and not handed over yet, in an order of their own. */
#include "../io_uring.h"

static struct ring ring;
static char text[] = "prepared";

static void spoil(void)
{
    memset(ring.sqes, 0, ring.sqes_size);
    ring_enter(&ring, 3, 0);
    while (*ring.cq_head != *ring.cq_tail)
        ++*ring.cq_head;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int ends[2];
    char got[9] = "";
    MUST(pipe(ends));
    ring_open(&ring, 4, 0, 0);
    ring_turn(&ring, 6, 100);
    ring_prepare(&ring, 200);
    struct io_uring_sqe *sqe = ring_prepare(&ring, 201);
    sqe->opcode = IORING_OP_WRITE, sqe->fd = ends[1], sqe->addr = (uintptr_t)text, sqe->len = 8, sqe->off = -1;
    ring_prepare(&ring, 202);
    unsigned at = *ring.sq_head & *ring.sq_mask, next = (at + 1) & *ring.sq_mask, swapped = ring.array[at];
    ring.array[at] = ring.array[next], ring.array[next] = swapped;
    subject_wait(spoil);
    EXPECT(*ring.sq_tail - *ring.sq_head == 3, "%u requests", *ring.sq_tail - *ring.sq_head);
    ring_enter(&ring, 3, 3);
    EXPECT(ring_reap(&ring, 201) == 8, "writing failed");
    ring_reap(&ring, 200);
    ring_reap(&ring, 202);
    EXPECT(read(ends[0], got, 8) == 8 && !strcmp(got, text), "read %s", got);
    ring_turn(&ring, 30, 400);
    subject_pass();
}
