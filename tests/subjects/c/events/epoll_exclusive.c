/* One event, two epoll sets that want it alone (EPOLLEXCLUSIVE), a thread waiting at each with a limit: one wakes. */
#include "../subject.h"
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

static volatile int woken;

static void *wait_at(void *set)
{
    struct epoll_event event;
    struct timespec limit = {100, 0};
    if (syscall(441 /* epoll_pwait2 */, *(int *)set, &event, 1, &limit, NULL, 8) == 1)
        __sync_fetch_and_add(&woken, 1);
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int sets[2], fd = (int)MUST(eventfd(0, 0));
    pthread_t threads[2];
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE | EPOLLET};
    for (int i = 0; i < 2; i++) {
        sets[i] = (int)MUST(epoll_create1(0));
        MUST(epoll_ctl(sets[i], EPOLL_CTL_ADD, fd, &event));
        MUST0(pthread_create(&threads[i], NULL, wait_at, &sets[i]));
    }
    subject_all_asleep(2);
    subject_wait(NULL);
    uint64_t one = 1;
    MUST(write(fd, &one, sizeof one));
    for (int i = 0; i < 50; i++)
        subject_tick();
    EXPECT(woken == 1, "%d were woken", woken);
    MUST(write(fd, &one, sizeof one));
    for (int i = 0; i < 2; i++)
        MUST0(pthread_join(threads[i], NULL));
    EXPECT(woken == 2, "the other one does not wake");
    event.events = EPOLLIN;
    EXPECT(epoll_ctl(sets[0], EPOLL_CTL_MOD, fd, &event) == -1, "it is no longer exclusive");
    subject_pass();
}
