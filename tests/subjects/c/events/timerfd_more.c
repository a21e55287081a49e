/* Timers by descriptor: cancelled when the clock is set, in boot time, with ticks waiting, shared by a child, inherited. */
#include "../subject.h"
#include <poll.h>
#include <sys/timerfd.h>

#ifndef TFD_TIMER_CANCEL_ON_SET
#define TFD_TIMER_CANCEL_ON_SET 2
#endif

static const char *setting_of(int fd)
{
    char name[30];
    snprintf(name, sizeof name, "fdinfo/%d", fd);
    return subject_proc(name, "settime flags: ");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int wall = (int)MUST(timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC)), boot = (int)MUST(timerfd_create(CLOCK_BOOTTIME, 0));
    int ticking = (int)MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)), same = (int)MUST(dup(ticking));
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct itimerspec far = {.it_value.tv_sec = now.tv_sec + 900}, later = {{3, 0}, {700, 0}}, fast = {{100, 0}, {0, 1}}, left;
    MUST(timerfd_settime(wall, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, NULL));
    MUST(timerfd_settime(boot, 0, &later, NULL));
    MUST(timerfd_settime(ticking, 0, &fast, NULL));
    EXPECT(poll(&(struct pollfd){.fd = ticking, .events = POLLIN}, 1, 5000) == 1, "setting up");
    char flags[20];
    snprintf(flags, sizeof flags, "%s", setting_of(wall));
    subject_wait(NULL);
    MUST(timerfd_gettime(wall, &left));
    EXPECT(left.it_value.tv_sec > 800 && left.it_value.tv_sec <= 900, "wall clock: %ld s remain", (long)left.it_value.tv_sec);
    EXPECT(strcmp(setting_of(wall), flags) == 0, "set with flags %s instead of %s", setting_of(wall), flags);
    MUST(timerfd_gettime(boot, &left));
    EXPECT(left.it_interval.tv_sec == 3 && left.it_value.tv_sec > 600, "boot time: %ld s remain", (long)left.it_value.tv_sec);
    uint64_t count = 0;
    EXPECT(read(same, &count, 8) == 8 && count == 1, "%lu ticks wait", (unsigned long)count);
    EXPECT(read(ticking, &count, 8) == -1 && errno == EAGAIN, "the two descriptors tell of different timers");
    MUST(timerfd_gettime(ticking, &left));
    EXPECT(left.it_interval.tv_sec == 100 && left.it_value.tv_sec > 50, "the ticking one: %ld s remain", (long)left.it_value.tv_sec);
    subject_pass();
}
