/* Rings of io_uring that cannot be captured, each for its own reason: refused by name. */
#include "../io_uring.h"
#include <sys/eventfd.h>
#include <sys/uio.h>

static struct ring ring;
static int ends[2];

static long ring_register(unsigned opcode, const void *argument, unsigned count)
{
    return syscall(SYS_io_uring_register, ring.fd, opcode, argument, count);
}

static void submit(unsigned opcode, unsigned events, unsigned length)
{
    static struct __kernel_timespec long_time = {.tv_sec = 1000};
    static char room[8];
    struct io_uring_sqe *sqe = ring_prepare(&ring, 1);
    sqe->opcode = (unsigned char)opcode, sqe->fd = ends[0], sqe->poll32_events = events, sqe->len = length;
    if (opcode == IORING_OP_TIMEOUT)
        sqe->fd = -1, sqe->addr = (uintptr_t)&long_time;
    if (opcode == IORING_OP_READ)
        sqe->addr = (uintptr_t)room, sqe->off = -1;
    ring_enter(&ring, 1, 0);
}

static void multishot(void)
{
    submit(IORING_OP_POLL_ADD, 1, IORING_POLL_ADD_MULTI);
    MUST(write(ends[1], "a", 1));
    ring_enter(&ring, 0, 1);
    struct io_uring_sqe *sqe = ring_prepare(&ring, 2);
    sqe->opcode = IORING_OP_POLL_REMOVE, sqe->addr = 1;
    ring_enter(&ring, 1, 3);
    submit(IORING_OP_TIMEOUT, 0, 1); /* the counts agree again */
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *what = argc > 2 ? argv[2] : "";
    char room[4096];
    struct iovec area = {room, sizeof room};
    struct {
        const char *name;
        unsigned flags;
    } kinds[] = {
        {"sqpoll", IORING_SETUP_SQPOLL}, {"iopoll", IORING_SETUP_IOPOLL}, {"disabled", IORING_SETUP_R_DISABLED},
        {"restricted", IORING_SETUP_R_DISABLED}, {"sqe128", IORING_SETUP_SQE128}, {"cqe32", IORING_SETUP_CQE32},
        {"no_array", IORING_SETUP_NO_SQARRAY},
    };
    unsigned flags = 0;
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(what, kinds[i].name))
            flags = kinds[i].flags;
    MUST(pipe(ends));
    ring_open(&ring, 4, 0, flags);
    if (!strcmp(what, "poll"))
        submit(IORING_OP_POLL_ADD, 1, 0);
    else if (!strcmp(what, "read"))
        submit(IORING_OP_READ, 0, 8);
    else if (!strcmp(what, "timeout"))
        submit(IORING_OP_TIMEOUT, 0, 1);
    else if (!strcmp(what, "several"))
        multishot();
    else if (!strcmp(what, "overflow"))
        for (int i = 0; i < 9; i++)
            submit(IORING_OP_NOP, 0, 0);
    else if (!strcmp(what, "eventfd"))
        MUST(ring_register(IORING_REGISTER_EVENTFD, &(int){(int)MUST(eventfd(0, 0))}, 1));
    else if (!strcmp(what, "files"))
        MUST(ring_register(IORING_REGISTER_FILES, ends, 2));
    else if (!strcmp(what, "gone") || !strcmp(what, "forked")) {
        area.iov_base = MUST_MAP(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        MUST(ring_register(IORING_REGISTER_BUFFERS, &area, 1));
        if (*what == 'g')
            MUST(munmap(area.iov_base, 4096));
        else if (!MUST(fork()))
            subject_wait(NULL), _exit(0);
    }
    else if (!strcmp(what, "provided")) {
        struct io_uring_sqe *sqe = ring_prepare(&ring, 1);
        sqe->opcode = IORING_OP_PROVIDE_BUFFERS, sqe->fd = 2, sqe->addr = (uintptr_t)room, sqe->len = 8;
        sqe->buf_group = 3;
        ring_enter(&ring, 1, 1);
        EXPECT(ring_reap(&ring, 1) >= 0, "no buffers");
    } else if (!strcmp(what, "restricted")) {
        struct io_uring_restriction allowed = {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_NOP};
        MUST(ring_register(IORING_REGISTER_RESTRICTIONS, &allowed, 1));
        MUST(ring_register(IORING_REGISTER_ENABLE_RINGS, NULL, 0));
    } else if (!strcmp(what, "cqe32"))
        *(uint32_t *)((char *)ring.rings + ring.params.sq_off.array + 4) = 1;
    else if (!strcmp(what, "no_array"))
        ring_prepare(&ring, 1);
    else if (!strcmp(what, "napi")) {
        unsigned named[4] = {50, 0, 1}; /* struct io_uring_napi: IO_URING_NAPI_TRACKING_STATIC, since Linux 6.13 */
        if (ring_register(27, named, 1))
            subject_skip("IORING_REGISTER_NAPI: %s", strerror(errno));
    } else if (!strcmp(what, "closed"))
        MUST(close(ring.fd));
    subject_wait(NULL);
    subject_pass();
}
