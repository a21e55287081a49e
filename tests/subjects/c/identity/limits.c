/* All resource limits. */
#include "../subject.h"
#include <sys/resource.h>

static const struct {
    int which;
    rlim_t soft, hard;
} lowered[] = {{RLIMIT_NOFILE, 333, 444},
               {RLIMIT_CORE, 0, 1 << 20},
               {RLIMIT_STACK, 5 << 20, 60 << 20},
               {RLIMIT_FSIZE, 1u << 30, 2u << 30},
               {RLIMIT_SIGPENDING, 100, 200},
               {RLIMIT_MSGQUEUE, 5000, 6000}};
#define COUNT ((int)(sizeof lowered / sizeof *lowered))

static void spoil(void)
{
    struct rlimit lower = {100, 444};
    setrlimit(RLIMIT_NOFILE, &lower);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct rlimit before[RLIM_NLIMITS], now;
    for (int i = 0; i < COUNT; i++) {
        struct rlimit limit = {lowered[i].soft, lowered[i].hard};
        if (setrlimit((__rlimit_resource_t)lowered[i].which, &limit))
            continue; /* the host allows even less */
    }
    for (int which = 0; which < RLIM_NLIMITS; which++)
        MUST(getrlimit((__rlimit_resource_t)which, &before[which]));
    subject_wait(spoil);
    for (int which = 0; which < RLIM_NLIMITS; which++) {
        MUST(getrlimit((__rlimit_resource_t)which, &now));
        EXPECT(now.rlim_cur == before[which].rlim_cur && now.rlim_max == before[which].rlim_max,
               "limit %d is %lu/%lu instead of %lu/%lu", which, now.rlim_cur, now.rlim_max, before[which].rlim_cur,
               before[which].rlim_max);
    }
    subject_pass();
}
