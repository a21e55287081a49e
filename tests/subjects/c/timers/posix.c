/* POSIX timers: the same numbers, clocks, signals and values; what remains; one disarmed, one absolute. */
#include "../subject.h"
#include <signal.h>

static timer_t timers[4];

static void spoil(void)
{
    for (int i = 0; i < 4; i++)
        timer_delete(timers[i]);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < 4; i++)
        sigaddset(&set, SIGRTMIN + i);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    static const clockid_t clocks[4] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID};
    for (int i = 0; i < 4; i++) {
        struct sigevent event = {.sigev_notify = i == 3 ? SIGEV_NONE : SIGEV_SIGNAL,
                                 .sigev_signo = SIGRTMIN + i,
                                 .sigev_value.sival_int = 900 + i};
        MUST(timer_create(clocks[i], &event, &timers[i]));
    }
    /* a gap in the numbers */
    MUST(timer_delete(timers[1]));
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1, .sigev_value.sival_int = 901};
    MUST(timer_create(CLOCK_REALTIME, &event, &timers[1]));
    struct itimerspec far = {{7, 5}, {600, 0}}, until = {{0, 0}, {time(NULL) + 700, 0}};
    MUST(timer_settime(timers[0], 0, &far, NULL));
    MUST(timer_settime(timers[1], TIMER_ABSTIME, &until, NULL));
    MUST(timer_settime(timers[3], 0, &far, NULL));
    subject_wait(spoil);
    struct itimerspec now;
    MUST(timer_gettime(timers[0], &now));
    EXPECT(now.it_interval.tv_sec == 7 && now.it_interval.tv_nsec == 5, "timer 0: interval");
    EXPECT(now.it_value.tv_sec > 500 && now.it_value.tv_sec <= 600, "timer 0: %ld s remain", (long)now.it_value.tv_sec);
    MUST(timer_gettime(timers[1], &now));
    EXPECT(now.it_value.tv_sec > 550 && now.it_value.tv_sec <= 700, "timer 1: %ld s remain", (long)now.it_value.tv_sec);
    MUST(timer_gettime(timers[2], &now));
    EXPECT(now.it_value.tv_sec == 0 && now.it_value.tv_nsec == 0, "timer 2 was disarmed");
    MUST(timer_gettime(timers[3], &now));
    EXPECT(now.it_value.tv_sec > 500 && now.it_value.tv_sec <= 600, "timer 3: %ld s remain", (long)now.it_value.tv_sec);
    struct itimerspec soon = {{0, 0}, {0, 1000000}};
    for (int i = 0; i < 3; i++) {
        siginfo_t info;
        struct timespec limit = {5, 0};
        MUST(timer_settime(timers[i], 0, &soon, NULL));
        int got = sigtimedwait(&set, &info, &limit);
        EXPECT(got == SIGRTMIN + i, "timer %d sends signal %d", i, got);
        EXPECT(info.si_code == SI_TIMER && info.si_value.sival_int == 900 + i, "timer %d: its value", i);
    }
    subject_pass();
}
