/* Timers by descriptor that would wake the host (CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM). */
#include "../subject.h"
#include <sys/timerfd.h>

static const char *clock_of(int fd)
{
    char name[30];
    snprintf(name, sizeof name, "fdinfo/%d", fd);
    return subject_proc(name, "clockid: ");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int wall = timerfd_create(CLOCK_REALTIME_ALARM, 0), boot = timerfd_create(CLOCK_BOOTTIME_ALARM, TFD_NONBLOCK);
    if (wall < 0 || boot < 0)
        subject_skip("CAP_WAKE_ALARM");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct itimerspec far = {.it_value.tv_sec = now.tv_sec + 900}, later = {{3, 0}, {700, 0}}, left;
    MUST(timerfd_settime(wall, TFD_TIMER_ABSTIME, &far, NULL));
    MUST(timerfd_settime(boot, 0, &later, NULL));
    subject_wait(NULL);
    EXPECT(atoi(clock_of(wall)) == CLOCK_REALTIME_ALARM, "the wall clock's is of clock %s", clock_of(wall));
    EXPECT(atoi(clock_of(boot)) == CLOCK_BOOTTIME_ALARM, "boot time's is of clock %s", clock_of(boot));
    MUST(timerfd_gettime(wall, &left));
    EXPECT(left.it_value.tv_sec > 800 && left.it_value.tv_sec <= 900, "wall clock: %ld s remain", (long)left.it_value.tv_sec);
    MUST(timerfd_gettime(boot, &left));
    EXPECT(left.it_interval.tv_sec == 3 && left.it_value.tv_sec > 600, "boot time: %ld s remain", (long)left.it_value.tv_sec);
    subject_pass();
}
