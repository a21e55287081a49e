/* Contexts for asynchronous I/O: events that nobody has fetched, at a place where the ring begins anew. */
#include "../subject.h"
#include <linux/aio_abi.h>
#include <sys/syscall.h>

struct ring { /* fs/aio.c */
    unsigned id, slots, head, tail, magic, features, others, header_bytes;
};
#define WAITING 5

static aio_context_t used, fresh;
static int file;
static char text[] = "0123456789";
static char got[sizeof text];

static void submit(aio_context_t context, uint64_t data, int at)
{
    struct iocb request = {
        .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (unsigned)file, .aio_buf = (uintptr_t)got, .aio_nbytes = 4,
        .aio_offset = at, .aio_data = data,
    };
    long result = syscall(SYS_io_submit, context, 1, &(struct iocb *){&request});
    EXPECT(result == 1, "io_submit: %s", strerror(errno));
}

static void fetch(aio_context_t context, uint64_t data, long result)
{
    struct io_event event = {0};
    long count = syscall(SYS_io_getevents, context, 0, 1, &event, &(struct timespec){0});
    EXPECT(count == 1, "no event instead of %lu", (unsigned long)data);
    EXPECT(event.data == data && event.res == result, "event %lu with %ld instead of %lu with %ld",
           (unsigned long)event.data, (long)event.res, (unsigned long)data, result);
}

static void spoil(void)
{
    for (int i = 0; i < WAITING; i++)
        fetch(used, 1000 + (uint64_t)i, 4 - i);
    submit(fresh, 1, 0);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (syscall(SYS_io_setup, 1, &used) < 0 || syscall(SYS_io_setup, 300, &fresh) < 0)
        subject_skip("asynchronous I/O: %s", strerror(errno));
    file = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    MUST(write(file, text, 10));
    volatile struct ring *ring = (void *)used;
    unsigned slots = ring->slots;
    for (unsigned i = 0; i < 2 * slots - 2; i++) {
        submit(used, i, 0);
        fetch(used, i, 4);
    }
    for (int i = 0; i < WAITING; i++)
        submit(used, 1000 + (uint64_t)i, 6 + i);
    EXPECT(ring->tail < ring->head, "the ring does not begin anew: %u, %u", ring->head, ring->tail);
    unsigned head = ring->head, tail = ring->tail;
    subject_wait(spoil);
    EXPECT(ring->head == head && ring->tail == tail && ring->slots == slots, "the ring is at %u, %u", ring->head, ring->tail);
    for (int i = 0; i < WAITING; i++)
        fetch(used, 1000 + (uint64_t)i, 4 - i);
    for (aio_context_t *context = &used; context; context = context == &used ? &fresh : NULL)
        for (unsigned i = 0; i < slots + 3; i++) {
            memset(got, 0, sizeof got);
            submit(*context, i, 3);
            fetch(*context, i, 4);
            EXPECT(memcmp(got, text + 3, 4) == 0, "%s was read", got);
        }
    for (unsigned i = 0; i < 60; i++) /* side by side, as many as a small ring has room for on most hosts */
        submit(fresh, i, 0);
    for (unsigned i = 0; i < 60; i++)
        fetch(fresh, i, 4);
    MUST(syscall(SYS_io_destroy, used));
    MUST(syscall(SYS_io_destroy, fresh));
    subject_pass();
}
