/*
 * Limits that leave no room for anything that the program does not do: not for what a checkpoint does in its name either.
 * With "files" as further argument: a child that may write no file at all, nor be allowed to.
 */
#include "../subject.h"
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

static rlim_t set(int which, rlim_t value)
{
    struct rlimit limit;
    MUST(getrlimit(which, &limit));
    limit.rlim_cur = value;
    MUST(setrlimit(which, &limit));
    return value;
}

static void check_child(void)
{
    struct rlimit none = {0, 0}, now;
    int up[2];
    char told;
    MUST(pipe(up));
    pid_t child = (pid_t)MUST(fork());
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        MUST(setrlimit(RLIMIT_FSIZE, &none));
        MUST(write(up[1], "!", 1));
        for (;;)
            pause();
    }
    MUST(read(up[0], &told, 1));
    subject_wait(NULL);
    MUST(prlimit(child, RLIMIT_FSIZE, NULL, &now));
    EXPECT(now.rlim_cur == 0 && now.rlim_max == 0, "its limits are %ld and %ld", (long)now.rlim_cur, (long)now.rlim_max);
    MUST(kill(child, SIGKILL));
    MUST(waitpid(child, NULL, 0));
    subject_pass();
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (argc > 2)
        check_child();
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
