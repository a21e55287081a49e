/* More queued signals than fit into one order to queue them; and a limit that by now would not allow any. */
#include "../subject.h"
#include <signal.h>
#include <sys/resource.h>

enum { MOST = 9000 };

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigset_t all;
    sigfillset(&all);
    MUST(sigprocmask(SIG_BLOCK, &all, NULL));
    int queued = 0;
    while (queued < MOST && sigqueue(getpid(), SIGRTMIN + queued % 3, (union sigval){.sival_int = queued}) == 0)
        queued++;
    struct rlimit limit;
    MUST(getrlimit(RLIMIT_SIGPENDING, &limit));
    limit.rlim_cur = 2;
    MUST(setrlimit(RLIMIT_SIGPENDING, &limit));
    subject_wait(NULL);
    int next[3] = {0, 1, 2};
    for (int i = 0; i < queued; i++) {
        siginfo_t info;
        int number = sigtimedwait(&all, &info, &(struct timespec){0});
        EXPECT(number >= SIGRTMIN, "%d of %d signals are there", i, queued);
        int *value = &next[number - SIGRTMIN];
        EXPECT(info.si_value.sival_int == *value, "value %d instead of %d", info.si_value.sival_int, *value);
        *value += 3;
    }
    EXPECT(sigtimedwait(&all, NULL, &(struct timespec){0}) == -1, "there is a signal more");
    struct rlimit after;
    MUST(getrlimit(RLIMIT_SIGPENDING, &after));
    EXPECT(after.rlim_cur == 2 && after.rlim_max == limit.rlim_max, "the limit became %ld", (long)after.rlim_cur);
    subject_pass();
}
