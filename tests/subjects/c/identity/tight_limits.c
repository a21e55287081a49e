/* Limits that leave no room for anything that the program does not do: not for what a checkpoint does in its name either. */
#include "../subject.h"
#include <sys/resource.h>

static rlim_t set(int which, rlim_t value)
{
    struct rlimit limit;
    MUST(getrlimit(which, &limit));
    limit.rlim_cur = value;
    MUST(setrlimit(which, &limit));
    return value;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    EXPECT(statm && fscanf(statm, "%ld", &pages) == 1, "statm");
    fclose(statm);
    int high = MUST(fcntl(0, F_DUPFD, 77));
    const int which[] = {RLIMIT_AS, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_MEMLOCK};
    rlim_t values[6] = {(rlim_t)(pages + 1) * 4096, 40 * 4096, 140000, 0, 4, 0};
    for (int i = 0; i < 6; i++)
        set(which[i], values[i]);
    subject_wait(NULL);
    for (int i = 0; i < 6; i++) {
        struct rlimit now;
        MUST(getrlimit(which[i], &now));
        EXPECT(now.rlim_cur == values[i], "limit %d was %ld and is %ld", which[i], (long)values[i], (long)now.rlim_cur);
    }
    EXPECT(fcntl(high, F_GETFD) >= 0, "a descriptor above the limit is gone");
    set(RLIMIT_FSIZE, 4096);
    subject_pass();
}
