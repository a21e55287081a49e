/*
 * Waits with a limit end when they would have ended without the freeze: what remained goes on, no limit begins anew.
 * With the argument "all" also those of which nobody but the OS kernel knows what remains.
 */
#include "blocked.h"
#include <linux/futex.h>
#include <poll.h>
#include <sys/select.h>
#include <sys/syscall.h>

#define LIMIT_S 4
#define BEFORE_S 2.5 /* how much of it is over when the dump is made */
static double started;
static uint32_t word;

/* A call may also give EINTR when it says truly how much is missing. */
static long in_time(const char *name, long result, double remains)
{
    double waited = subject_now(CLOCK_MONOTONIC) - started;
    if (result == -1 && errno == EINTR)
        EXPECT(remains >= 0 && remains < LIMIT_S - BEFORE_S + 0.5 && waited + remains > LIMIT_S - 0.2,
               "%s: after %.2f s %.2f are said to remain", name, waited, remains);
    else
        EXPECT(waited > LIMIT_S - 0.1, "%s ends after %.2f s", name, waited);
    return 0;
}
static long by_nanosleep(void)
{
    struct timespec limit = {LIMIT_S, 0}, remains = {0};
    long result = nanosleep(&limit, &remains);
    return in_time("nanosleep", result, (double)remains.tv_sec + (double)remains.tv_nsec / 1e9);
}
static long by_clock_nanosleep(void)
{
    struct timespec limit = {LIMIT_S, 0};
    int error = clock_nanosleep(CLOCK_BOOTTIME, 0, &limit, NULL);
    errno = error;
    return in_time("clock_nanosleep", error ? -1 : 0, -1);
}
static long by_poll(void) { return in_time("poll", poll(NULL, 0, LIMIT_S * 1000), -1); }
static long by_select(void)
{
    struct timeval limit = {LIMIT_S, 0};
    return in_time("select", select(0, NULL, NULL, NULL, &limit), -1);
}
static long by_futex(void)
{
    struct timespec limit = {LIMIT_S, 0};
    long result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &limit, NULL, 0);
    return in_time("futex", result == -1 && errno == ETIMEDOUT ? 0 : result, -1);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    started = subject_now(CLOCK_MONOTONIC);
    struct blocked all[] = {WAITS_ALONE("nanosleep", nanosleep, 0),
                            WAITS_ALONE("select", select, 0),
                            WAITS_ALONE("clock_nanosleep", clock_nanosleep, 0),
                            WAITS_ALONE("poll", poll, 0),
                            WAITS_ALONE("futex", futex, 0)};
    int count = argc > 2 ? 5 : 2;
    pthread_t threads[5];
    for (int i = 0; i < count; i++)
        MUST0(pthread_create(&threads[i], NULL, blocked_run, &all[i]));
    subject_all_asleep(count);
    while (subject_now(CLOCK_MONOTONIC) < started + BEFORE_S)
        subject_tick();
    subject_wait(NULL);
    double resumed = subject_now(CLOCK_MONOTONIC);
    for (int i = 0; i < count; i++) {
        MUST0(pthread_join(threads[i], NULL));
        double took = subject_now(CLOCK_MONOTONIC) - resumed;
        EXPECT(took < LIMIT_S - 1, "the limit of %s began anew: it took %.2f s more", all[i].name, took);
    }
    subject_pass();
}
