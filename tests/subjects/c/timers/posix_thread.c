/* A POSIX timer that signals one thread signals that thread still. */
#include "../subject.h"
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static volatile pid_t expected, seen;
static pthread_barrier_t set, fire;

static void handler(int number) { (void)number, seen = (pid_t)syscall(SYS_gettid); }

static void *run(void *argument)
{
    (void)argument;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    timer_t timer;
    MUST(timer_create(CLOCK_MONOTONIC, &event, &timer));
    pthread_barrier_wait(&set);
    pthread_barrier_wait(&fire);
    expected = (pid_t)syscall(SYS_gettid);
    struct itimerspec soon = {{0, 0}, {0, 1000000}};
    MUST(timer_settime(timer, 0, &soon, NULL));
    for (int i = 0; i < 1000 && !seen; i++)
        subject_tick();
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction act = {.sa_handler = handler};
    MUST(sigaction(SIGRTMIN, &act, NULL));
    pthread_barrier_init(&set, NULL, 2);
    pthread_barrier_init(&fire, NULL, 2);
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, run, NULL));
    pthread_barrier_wait(&set);
    subject_all_asleep(1);
    subject_wait(NULL);
    pthread_barrier_wait(&fire);
    MUST0(pthread_join(thread, NULL));
    EXPECT(seen && seen == expected, "thread %d got the signal instead of %d", (int)seen, (int)expected);
    subject_pass();
}
