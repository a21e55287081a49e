/* Blocked signals that wait for one thread are that thread's still. */
#include "../subject.h"
#include <pthread.h>
#include <signal.h>

static pthread_barrier_t set, checked;
static sigset_t blocked;

static void *run(void *argument)
{
    int me = (int)(long)argument;
    union sigval value = {.sival_int = 50 + me};
    MUST0(pthread_sigqueue(pthread_self(), SIGRTMIN + 1, value));
    if (me == 1)
        MUST0(pthread_kill(pthread_self(), SIGUSR2));
    pthread_barrier_wait(&set);
    pthread_barrier_wait(&checked);
    sigset_t waiting;
    sigpending(&waiting);
    EXPECT(sigismember(&waiting, SIGUSR2) == (me == 1), "thread %d: SIGUSR2 is in the wrong queue", me);
    siginfo_t info;
    struct timespec now = {0};
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGRTMIN + 1);
    EXPECT(sigtimedwait(&one, &info, &now) == SIGRTMIN + 1, "thread %d: its signal is gone", me);
    EXPECT(info.si_value.sival_int == 50 + me, "thread %d: value %d", me, info.si_value.sival_int);
    EXPECT(sigtimedwait(&one, &info, &now) == -1, "thread %d: another thread's signal came as well", me);
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    sigaddset(&blocked, SIGRTMIN + 1);
    MUST0(pthread_sigmask(SIG_BLOCK, &blocked, NULL));
    pthread_barrier_init(&set, NULL, 4);
    pthread_barrier_init(&checked, NULL, 4);
    pthread_t threads[3];
    for (long i = 0; i < 3; i++)
        MUST0(pthread_create(&threads[i], NULL, run, (void *)i));
    pthread_barrier_wait(&set);
    subject_all_asleep(3);
    subject_wait(NULL);
    pthread_barrier_wait(&checked);
    for (int i = 0; i < 3; i++)
        MUST0(pthread_join(threads[i], NULL));
    subject_pass();
}
