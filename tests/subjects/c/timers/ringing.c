/* A periodic timer whose signal is blocked: it is queued once, and tells how many periods went by when it is taken. */
#include "../subject.h"
#include <signal.h>

enum { PERIOD_NS = 5000000 };

static timer_t make(int number, int value, struct itimerspec setting)
{
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = number, .sigev_value.sival_int = value};
    MUST(timer_create(CLOCK_MONOTONIC, &event, &timer));
    MUST(timer_settime(timer, 0, &setting, NULL));
    return timer;
}

static bool take(int number, siginfo_t *info)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, number);
    return sigtimedwait(&one, info, &(struct timespec){0}) == number;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigset_t all;
    sigfillset(&all);
    MUST(sigprocmask(SIG_BLOCK, &all, NULL));
    timer_t timer = make(SIGRTMIN, 5, (struct itimerspec){{0, PERIOD_NS}, {0, PERIOD_NS}});
    make(SIGUSR1, 6, (struct itimerspec){.it_value = {0, 1}});
    double begun = subject_now(CLOCK_MONOTONIC);
    while (subject_now(CLOCK_MONOTONIC) < begun + 4 * PERIOD_NS / 1e9)
        subject_tick();
    subject_wait(NULL);
    double now = subject_now(CLOCK_MONOTONIC);
    while (subject_now(CLOCK_MONOTONIC) < now + 4 * PERIOD_NS / 1e9)
        subject_tick();
    siginfo_t info;
    EXPECT(take(SIGUSR1, &info) && info.si_code == SI_TIMER && info.si_value.sival_int == 6, "the single signal");
    EXPECT(!take(SIGUSR1, &info), "the single signal came twice");
    EXPECT(take(SIGRTMIN, &info) && info.si_code == SI_TIMER && info.si_value.sival_int == 5, "the periodic signal");
    int passed = info.si_overrun;
    EXPECT(passed >= 3, "only %d periods went by", passed);
    EXPECT(timer_getoverrun(timer) == passed, "timer_getoverrun says %d, not %d", timer_getoverrun(timer), passed);
    EXPECT(!take(SIGRTMIN, &info) || info.si_overrun < passed, "the periodic signal was queued twice");
    while (!take(SIGRTMIN, &info))
        subject_tick();
    subject_pass();
}
