/* Threads blocked in poll, ppoll, select and epoll_wait, without and with a time limit, wake by input and only by it. */
#include "../subject.h"
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>

enum { POLL, POLL_LIMIT, PPOLL, SELECT, EPOLL, COUNT };
static const char *names[] = {"poll", "poll with a limit", "ppoll", "select", "epoll_wait"};
static int ends[COUNT][2];
static volatile bool written;

static int wait_once(int kind)
{
    struct pollfd ask = {.fd = ends[kind][0], .events = POLLIN};
    struct timespec limit = {600, 0};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[kind][0], &set);
    struct epoll_event event = {.events = EPOLLIN};
    switch (kind) {
    case POLL:
        return poll(&ask, 1, -1);
    case POLL_LIMIT:
        return poll(&ask, 1, 600000);
    case PPOLL:
        return ppoll(&ask, 1, &limit, NULL);
    case SELECT:
        return select(ends[kind][0] + 1, &set, NULL, NULL, NULL);
    default: {
        int epoll = (int)MUST(epoll_create1(0));
        MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[kind][0], &event));
        return epoll_wait(epoll, &event, 1, -1);
    }
    }
}

static void *run(void *argument)
{
    int kind = (int)(long)argument, result;
    /* EINTR is what any signal may cause; being told of input that isn't there is not allowed */
    while ((result = wait_once(kind)) == -1 && errno == EINTR)
        ;
    EXPECT(result == 1, "%s gives %d: %s", names[kind], result, strerror(errno));
    EXPECT(written, "%s wakes without input", names[kind]);
    char byte;
    EXPECT(read(ends[kind][0], &byte, 1) == 1, "%s: nothing to read", names[kind]);
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t threads[COUNT];
    for (long i = 0; i < COUNT; i++) {
        MUST(pipe(ends[i]));
        MUST0(pthread_create(&threads[i], NULL, run, (void *)i));
    }
    subject_all_asleep(COUNT);
    subject_wait(NULL);
    written = true;
    for (int i = 0; i < COUNT; i++) {
        MUST(write(ends[i][1], "x", 1));
        MUST0(pthread_join(threads[i], NULL));
    }
    subject_pass();
}
