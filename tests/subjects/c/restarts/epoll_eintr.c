/* A thread frozen in epoll_wait, sigwait or pause does not see the freeze: no EINTR without a signal. */
#include "../subject.h"
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>

static int ends[2];
static volatile sig_atomic_t paused;
static void handler(int number) { paused = number; }

static void *in_epoll(void *argument)
{
    (void)argument;
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = (int)MUST(epoll_create1(0));
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event));
    int result = epoll_wait(epoll, &event, 1, -1);
    EXPECT(result == 1, "epoll_wait gives %d: %s", result, strerror(errno));
    return NULL;
}

static void *in_pause(void *argument)
{
    (void)argument;
    pause();
    EXPECT(paused == SIGUSR1, "pause ended without a signal");
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction act = {.sa_handler = handler};
    MUST(sigaction(SIGUSR1, &act, NULL));
    MUST(pipe(ends));
    pthread_t threads[2];
    MUST0(pthread_create(&threads[0], NULL, in_epoll, NULL));
    MUST0(pthread_create(&threads[1], NULL, in_pause, NULL));
    subject_all_asleep(2);
    subject_wait(NULL);
    MUST(write(ends[1], "x", 1));
    MUST0(pthread_kill(threads[1], SIGUSR1));
    for (int i = 0; i < 2; i++)
        MUST0(pthread_join(threads[i], NULL));
    subject_pass();
}
