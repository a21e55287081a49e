/* Rings of io_uring(7) by raw system calls: set up, filled, entered, reaped. */
#ifndef SUBJECT_IO_URING_H
#define SUBJECT_IO_URING_H

#include "subject.h"
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1u << 16)
#endif

struct ring {
    int fd;
    unsigned sq_entries, cq_entries;
    unsigned *sq_head, *sq_tail, *sq_mask, *sq_flags, *sq_dropped, *array;
    unsigned *cq_head, *cq_tail, *cq_mask, *cq_overflow;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    void *rings;
    size_t rings_size, sqes_size;
    struct io_uring_params params;
};

/* Set a ring up; with `flags` IORING_SETUP_… and, where it is not 0, so many completions. Skips where there is none. */
UNUSED static void ring_open(struct ring *ring, unsigned entries, unsigned completions, unsigned flags)
{
    struct io_uring_params *p = &ring->params;
    memset(p, 0, sizeof *p);
    p->flags = flags | (completions ? IORING_SETUP_CQSIZE : 0);
    p->cq_entries = completions;
    ring->fd = (int)syscall(SYS_io_uring_setup, entries, p);
    if (ring->fd < 0)
        subject_skip("io_uring_setup(2) with flags %#x: %s", flags, strerror(errno));
    EXPECT(p->features & IORING_FEAT_SINGLE_MMAP, "the OS kernel is too old");
    size_t sq = p->sq_off.array + p->sq_entries * sizeof(unsigned);
    size_t cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
    ring->rings_size = sq > cq ? sq : cq;
    ring->sqes_size = p->sq_entries * sizeof(struct io_uring_sqe);
    int prot = PROT_READ | PROT_WRITE;
    char *at = ring->rings = MUST_MAP(mmap(NULL, ring->rings_size, prot, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING));
    ring->sqes = MUST_MAP(mmap(NULL, ring->sqes_size, prot, MAP_SHARED, ring->fd, IORING_OFF_SQES));
    ring->sq_entries = p->sq_entries, ring->cq_entries = p->cq_entries;
    ring->sq_head = (unsigned *)(at + p->sq_off.head), ring->sq_tail = (unsigned *)(at + p->sq_off.tail);
    ring->sq_mask = (unsigned *)(at + p->sq_off.ring_mask), ring->sq_flags = (unsigned *)(at + p->sq_off.flags);
    ring->sq_dropped = (unsigned *)(at + p->sq_off.dropped), ring->array = (unsigned *)(at + p->sq_off.array);
    ring->cq_head = (unsigned *)(at + p->cq_off.head), ring->cq_tail = (unsigned *)(at + p->cq_off.tail);
    ring->cq_mask = (unsigned *)(at + p->cq_off.ring_mask), ring->cq_overflow = (unsigned *)(at + p->cq_off.overflow);
    ring->cqes = (struct io_uring_cqe *)(at + p->cq_off.cqes);
}

/* A request at the tail, all zeros but for its number: of no effect (IORING_OP_NOP) unless it is changed. */
UNUSED static struct io_uring_sqe *ring_prepare(struct ring *ring, uint64_t number)
{
    unsigned tail = *ring->sq_tail, at = tail & *ring->sq_mask;
    EXPECT(tail - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE) < ring->sq_entries, "there is no room for a request");
    struct io_uring_sqe *sqe = &ring->sqes[at];
    memset(sqe, 0, sizeof *sqe);
    sqe->user_data = number;
    if (!(ring->params.flags & IORING_SETUP_NO_SQARRAY))
        ring->array[at] = at;
    __atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
    return sqe;
}

/* Hand over what is prepared, and wait for so many completions. */
UNUSED static void ring_enter(struct ring *ring, unsigned count, unsigned wait)
{
    long done = MUST(syscall(SYS_io_uring_enter, ring->fd, count, wait, wait ? IORING_ENTER_GETEVENTS : 0, NULL, 0));
    EXPECT(done == (long)count, "%ld of %u requests were taken", done, count);
}

/* The next completion, which has to be that of request `number`; its result. */
UNUSED static int ring_reap(struct ring *ring, uint64_t number)
{
    unsigned head = *ring->cq_head;
    EXPECT(head != __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE), "request %lu has no completion", (long)number);
    struct io_uring_cqe *cqe = &ring->cqes[head & *ring->cq_mask];
    EXPECT(cqe->user_data == number, "completion of %lu, not %lu", (long)cqe->user_data, (long)number);
    int result = cqe->res;
    __atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
    return result;
}

UNUSED static void ring_empty(struct ring *ring)
{
    EXPECT(*ring->cq_head == *ring->cq_tail, "there are %u completions", *ring->cq_tail - *ring->cq_head);
    EXPECT(*ring->sq_head == *ring->sq_tail, "there are %u requests", *ring->sq_tail - *ring->sq_head);
    EXPECT(!*ring->sq_dropped && !*ring->cq_overflow, "%u dropped, %u lost", *ring->sq_dropped, *ring->cq_overflow);
}

/* So many requests of no effect, one after the other, all reaped; they are numbered from `first` on. */
UNUSED static void ring_turn(struct ring *ring, unsigned count, uint64_t first)
{
    for (uint64_t number = first; number < first + count; number++) {
        ring_prepare(ring, number);
        ring_enter(ring, 1, 1);
        EXPECT(ring_reap(ring, number) == 0, "request %lu failed", (long)number);
    }
    ring_empty(ring);
}

#endif
