/* timerfds: what remains, interval, expirations not yet read; disarmed, absolute and real-time ones. */
#include "../subject.h"
#include <poll.h>
#include <sys/timerfd.h>

static int fds[4];
static void spoil(void)
{
    struct itimerspec off = {0};
    for (int i = 0; i < 4; i++)
        timerfd_settime(fds[i], 0, &off, NULL);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const clockid_t clocks[4] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_MONOTONIC};
    for (int i = 0; i < 4; i++)
        fds[i] = (int)MUST(timerfd_create(clocks[i], TFD_NONBLOCK));
    struct itimerspec far = {{11, 22}, {500, 0}}, until = {{0, 0}, {time(NULL) + 800, 0}}, fast = {{0, 0}, {0, 1}};
    MUST(timerfd_settime(fds[0], 0, &far, NULL));
    MUST(timerfd_settime(fds[1], TFD_TIMER_ABSTIME, &until, NULL));
    MUST(timerfd_settime(fds[3], 0, &fast, NULL));
    struct pollfd due = {.fd = fds[3], .events = POLLIN};
    EXPECT(poll(&due, 1, 5000) == 1, "the fast one never expires");
    subject_wait(spoil);
    struct itimerspec now;
    MUST(timerfd_gettime(fds[0], &now));
    EXPECT(now.it_interval.tv_sec == 11 && now.it_interval.tv_nsec == 22, "the interval");
    EXPECT(now.it_value.tv_sec > 400 && now.it_value.tv_sec <= 500, "%ld s remain", (long)now.it_value.tv_sec);
    MUST(timerfd_gettime(fds[1], &now));
    EXPECT(now.it_value.tv_sec > 650 && now.it_value.tv_sec <= 800, "absolute: %ld s remain", (long)now.it_value.tv_sec);
    MUST(timerfd_gettime(fds[2], &now));
    EXPECT(!now.it_value.tv_sec && !now.it_value.tv_nsec, "the disarmed one is armed");
    uint64_t count = 0;
    EXPECT(read(fds[3], &count, 8) == 8 && count == 1, "%lu expirations wait to be read", (unsigned long)count);
    MUST(timerfd_settime(fds[2], 0, &fast, NULL));
    due.fd = fds[2];
    EXPECT(poll(&due, 1, 5000) == 1, "the disarmed one cannot be armed");
    subject_pass();
}
