/* The three interval timers: interval, and what remains. */
#include "../subject.h"
#include <sys/time.h>

static void spoil(void)
{
    struct itimerval off = {0};
    for (int which = 0; which < 3; which++)
        setitimer(which, &off, NULL);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    for (int which = 0; which < 3; which++) {
        struct itimerval value = {{10 + which, 500}, {1000 + which, 0}};
        MUST(setitimer(which, &value, NULL));
    }
    subject_wait(spoil);
    for (int which = 0; which < 3; which++) {
        struct itimerval now;
        MUST(getitimer(which, &now));
        EXPECT(now.it_interval.tv_sec == 10 + which, "timer %d: interval %ld s", which, (long)now.it_interval.tv_sec);
        long remains = now.it_value.tv_sec;
        EXPECT(remains <= 1000 + which && remains > 900, "timer %d: %ld s remain", which, remains);
    }
    subject_pass();
}
