/* Timers whose signal is for a thread that has ended: they run, tell nobody, and can be set and deleted. */
#include "../subject.h"
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

static timer_t idle, once, periodic;
static volatile bool rang;

static void on_alarm(int number)
{
    (void)number;
    rang = true;
}

static void *brief(void *argument)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    struct itimerspec later = {.it_value.tv_sec = 5000}, often = {.it_interval.tv_nsec = 20000000, .it_value.tv_nsec = 1};
    MUST(timer_create(CLOCK_MONOTONIC, &event, &idle));
    MUST(timer_create(CLOCK_REALTIME, &event, &once));
    MUST(timer_create(CLOCK_MONOTONIC, &event, &periodic));
    sigset_t all;
    sigfillset(&all);
    MUST0(pthread_sigmask(SIG_SETMASK, &all, NULL));
    MUST(timer_settime(once, 0, &later, NULL));
    MUST(timer_settime(periodic, 0, &often, NULL));
    return argument;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    signal(SIGUSR1, on_alarm);
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, brief, NULL));
    MUST0(pthread_join(thread, NULL));
    subject_wait(NULL);
    struct itimerspec left, later = {.it_value.tv_sec = 100};
    MUST(timer_gettime(idle, &left));
    EXPECT(!left.it_value.tv_sec && !left.it_value.tv_nsec, "the idle timer runs");
    MUST(timer_gettime(once, &left));
    EXPECT(left.it_value.tv_sec > 4000 && left.it_value.tv_sec < 5000, "%ld s are left", (long)left.it_value.tv_sec);
    MUST(timer_gettime(periodic, &left));
    EXPECT(left.it_interval.tv_nsec == 20000000, "the period is %ld ns", left.it_interval.tv_nsec);
    MUST(timer_settime(idle, 0, &later, NULL));
    EXPECT(!rang, "somebody heard of it");
    MUST(timer_delete(idle));
    MUST(timer_delete(once));
    MUST(timer_delete(periodic));
    subject_pass();
}
