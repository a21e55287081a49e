/* eventfds: counter, semaphore mode, flags, a full one. */
#include "../subject.h"
#include <poll.h>
#include <sys/eventfd.h>

static int plain;
static void spoil(void)
{
    uint64_t value;
    read(plain, &value, 8) ? (void)0 : (void)0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    plain = (int)MUST(eventfd(41, EFD_NONBLOCK));
    int counting = (int)MUST(eventfd(3, EFD_SEMAPHORE | EFD_CLOEXEC | EFD_NONBLOCK)), full = (int)MUST(eventfd(0, 0));
    int empty = (int)MUST(eventfd(0, EFD_NONBLOCK));
    uint64_t value = UINT64_MAX - 1;
    MUST(write(full, &value, 8));
    value = 1;
    MUST(write(plain, &value, 8));
    subject_wait(spoil);
    EXPECT(read(empty, &value, 8) == -1 && errno == EAGAIN, "the empty one has %lu", (unsigned long)value);
    EXPECT(read(plain, &value, 8) == 8 && value == 42, "the counter is %lu", (unsigned long)value);
    for (int i = 0; i < 3; i++)
        EXPECT(read(counting, &value, 8) == 8 && value == 1, "semaphore, step %d: %lu", i, (unsigned long)value);
    EXPECT(read(counting, &value, 8) == -1 && errno == EAGAIN, "the semaphore counts more than 3");
    EXPECT(fcntl(counting, F_GETFD) == FD_CLOEXEC, "close-on-exec is lost");
    struct pollfd poll_full = {.fd = full, .events = POLLOUT | POLLIN};
    EXPECT(poll(&poll_full, 1, 0) == 1 && poll_full.revents == POLLIN, "the full one has room");
    EXPECT(read(full, &value, 8) == 8 && value == UINT64_MAX - 1, "the full one has %lu", (unsigned long)value);
    subject_pass();
}
