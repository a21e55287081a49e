/* Children that ended and were not waited for: by exit, by signals of all sorts; their statuses, in any order. */
#include "tree.h"
#include <sys/resource.h>

static const int ends[] = {0, SIGKILL, SIGTERM, SIGSEGV, SIGABRT, SIGALRM, 40};
#define COUNT (sizeof ends / sizeof *ends)

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pid_t pids[COUNT];
    MUST(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}));
    for (size_t i = 0; i < COUNT; i++)
        if ((pids[i] = (pid_t)MUST(fork())) == 0) {
            if (ends[i])
                raise(ends[i]);
            _exit(42);
        }
    for (size_t i = 0; i < COUNT; i++)
        while (child_state(pids[i]) != 'Z')
            subject_tick();
    subject_wait(NULL);
    for (size_t i = COUNT; i-- > 0;) {
        int status = 0;
        EXPECT(child_state(pids[i]) == 'Z', "the state of zombie %zu is %c", i, child_state(pids[i]));
        EXPECT(waitpid(pids[i], &status, WNOHANG) == pids[i], "zombie %zu is gone", i);
        if (ends[i] == 0)
            EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 42, "its status is %#x", status);
        else
            EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == ends[i], "the status of zombie %zu is %#x", i, status);
    }
    subject_pass();
}
