/* POSIX timers of every clock: boot time, TAI, the process's and a thread's processor time; an overrun; a SIGEV_THREAD. */
#include "../subject.h"
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>

static sem_t fired;
static pthread_barrier_t done;
static void notified(union sigval value) { (void)value, sem_post(&fired); }

static void *busy(void *argument)
{
    (void)argument;
    pthread_barrier_wait(&done);
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < 5; i++)
        sigaddset(&set, SIGRTMIN + i);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    pthread_barrier_init(&done, NULL, 2);
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, busy, NULL));
    clockid_t of_thread, clocks[] = {CLOCK_BOOTTIME, CLOCK_TAI, CLOCK_PROCESS_CPUTIME_ID, CLOCK_MONOTONIC, 0};
    MUST0(pthread_getcpuclockid(thread, &of_thread));
    clocks[4] = of_thread;
    timer_t timers[5], by_thread;
    for (int i = 0; i < 5; i++) {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + i, .sigev_value.sival_int = i};
        MUST(timer_create(clocks[i], &event, &timers[i]));
        struct itimerspec far = {{9, 0}, {300 + i, 0}}, fast = {{0, 1000000}, {0, 1000000}};
        MUST(timer_settime(timers[i], 0, i == 3 ? &fast : &far, NULL));
    }
    sem_init(&fired, 0, 0);
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = notified};
    MUST(timer_create(CLOCK_MONOTONIC, &event, &by_thread));
    subject_wait(NULL);
    for (int i = 0; i < 5; i++) {
        struct itimerspec now;
        MUST(timer_gettime(timers[i], &now));
        if (i == 3)
            EXPECT(now.it_interval.tv_nsec == 1000000, "the fast timer's interval");
        else
            EXPECT(now.it_interval.tv_sec == 9 && now.it_value.tv_sec > 250 && now.it_value.tv_sec <= 300 + i,
                   "timer %d: %ld s remain", i, (long)now.it_value.tv_sec);
    }
    siginfo_t info;
    struct timespec limit = {5, 0};
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGRTMIN + 3);
    for (int i = 0; i < 3; i++)
        EXPECT(sigtimedwait(&one, &info, &limit) == SIGRTMIN + 3 && info.si_int == 3, "the fast timer, time %d", i);
    MUST(timer_settime(by_thread, 0, &(struct itimerspec){.it_value.tv_nsec = 1000000}, NULL));
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5;
    EXPECT(sem_timedwait(&fired, &until) == 0, "the function of SIGEV_THREAD is not called");
    pthread_barrier_wait(&done);
    MUST0(pthread_join(thread, NULL));
    subject_pass();
}
