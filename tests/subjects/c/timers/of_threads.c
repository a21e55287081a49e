/* Timers of a thread's own processor time, made by a thread that is not the leader: they fire as that thread computes. */
#include "../subject.h"
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>

enum { SPAN_NS = 200000000 };

static timer_t own, idle;
static sem_t compute; /* waiting for it takes no processor time */
static volatile bool made, fired;

static void on_alarm(int number)
{
    (void)number;
    fired = true;
}

static void *sleeping(void *argument)
{
    pause();
    return argument;
}

static void *computing(void *argument)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec setting = {.it_value.tv_nsec = SPAN_NS};
    MUST(timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &own));
    MUST(timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &idle));
    MUST(timer_settime(own, 0, &setting, NULL));
    made = true;
    while (sem_wait(&compute))
        ;
    double begun = subject_now(CLOCK_THREAD_CPUTIME_ID);
    while (!fired && subject_now(CLOCK_THREAD_CPUTIME_ID) < begun + 1)
        ;
    EXPECT(fired, "the timer did not fire while its thread computed");
    fired = false;
    MUST(timer_settime(idle, 0, &setting, NULL));
    while (!fired && subject_now(CLOCK_THREAD_CPUTIME_ID) < begun + 2)
        ;
    EXPECT(fired, "the timer that was idle did not fire while its thread computed");
    return argument;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    signal(SIGUSR1, on_alarm);
    MUST(sem_init(&compute, 0, 0));
    pthread_t thread, another;
    MUST0(pthread_create(&another, NULL, sleeping, NULL));
    MUST0(pthread_create(&thread, NULL, computing, NULL));
    while (!made)
        subject_tick();
    subject_wait(NULL);
    struct itimerspec left;
    MUST(timer_gettime(own, &left));
    EXPECT(left.it_value.tv_nsec > 0 && left.it_value.tv_nsec <= SPAN_NS, "%ld ns are left", left.it_value.tv_nsec);
    MUST(timer_gettime(idle, &left));
    EXPECT(!left.it_value.tv_sec && !left.it_value.tv_nsec, "the idle timer runs");
    MUST(sem_post(&compute));
    MUST0(pthread_join(thread, NULL));
    subject_pass();
}
