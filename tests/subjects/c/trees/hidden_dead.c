/* Children that ended and were not waited for, and had been made such that /proc hides from their own user how. */
#include "tree.h"
#include <sys/prctl.h>
#include <sys/resource.h>

static const int ends[] = {0, SIGKILL, SIGTERM, SIGABRT};
#define COUNT (sizeof ends / sizeof *ends)

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pid_t pids[COUNT];
    siginfo_t told = {0};
    MUST(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}));
    for (size_t i = 0; i < COUNT; i++) {
        if ((pids[i] = (pid_t)MUST(fork())) == 0) {
            prctl(PR_SET_DUMPABLE, 0);
            if (ends[i])
                raise(ends[i]);
            _exit(200);
        }
        MUST(waitid(P_PID, (id_t)pids[i], &told, WEXITED | WNOWAIT));
    }
    subject_wait(NULL);
    for (size_t i = 0; i < COUNT; i++) {
        int status = 0;
        EXPECT(waitpid(pids[i], &status, WNOHANG) == pids[i], "dead child %zu is gone", i);
        EXPECT(status == (ends[i] ? ends[i] : 200 << 8), "the status of dead child %zu is %#x", i, (unsigned)status);
    }
    subject_pass();
}
