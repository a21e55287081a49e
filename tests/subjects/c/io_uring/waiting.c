/* A thread that waits for a completion of a ring that rests, with the ring's descriptor watched by an epoll. */
#include "../io_uring.h"
#include <pthread.h>
#include <sys/epoll.h>

static struct ring ring;
static long waited;

static void *wait_for_one(void *unused)
{
    (void)unused;
    waited = syscall(SYS_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
    if (waited < 0)
        waited = -errno;
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t thread;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 77};
    ring_open(&ring, 8, 0, 0);
    ring_turn(&ring, 3, 100);
    int epoll = (int)MUST(epoll_create1(0));
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, ring.fd, &event));
    MUST0(pthread_create(&thread, NULL, wait_for_one, NULL));
    subject_all_asleep(1);
    subject_wait(NULL);
    EXPECT(epoll_wait(epoll, &event, 1, 0) == 0, "the ring has something");
    ring_prepare(&ring, 200);
    ring_enter(&ring, 1, 0);
    MUST0(pthread_join(thread, NULL));
    EXPECT(waited == 0, "the waiting thread was told %ld", waited);
    EXPECT(epoll_wait(epoll, &event, 1, 0) == 1 && event.data.u64 == 77, "the epoll does not tell of the ring");
    ring_reap(&ring, 200);
    EXPECT(epoll_wait(epoll, &event, 1, 0) == 0, "the epoll tells of an empty ring");
    subject_pass();
}
