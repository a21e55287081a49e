/* Children that ended and were not waited for: by exit, by signals of all sorts; their names and statuses, in any order. */
#include "tree.h"
#include <sys/prctl.h>
#include <sys/resource.h>

static const int ends[] = {0, SIGKILL, SIGTERM, SIGSEGV, SIGABRT, SIGALRM, 40};
#define COUNT (sizeof ends / sizeof *ends)

static void expect_name(pid_t pid, size_t number)
{
    char path[64], name[32] = "", wanted[32];
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    snprintf(wanted, sizeof wanted, "zombie %zu\n", number);
    FILE *file = fopen(path, "r");
    EXPECT(file && fgets(name, sizeof name, file) && strcmp(name, wanted) == 0, "zombie %zu is called %s", number, name);
    fclose(file);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pid_t pids[COUNT];
    MUST(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}));
    for (size_t i = 0; i < COUNT; i++)
        if ((pids[i] = (pid_t)MUST(fork())) == 0) {
            char name[16];
            snprintf(name, sizeof name, "zombie %zu", i);
            prctl(PR_SET_NAME, name);
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
        expect_name(pids[i], i);
        EXPECT(waitpid(pids[i], &status, WNOHANG) == pids[i], "zombie %zu is gone", i);
        if (ends[i] == 0)
            EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 42, "its status is %#x", status);
        else
            EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == ends[i], "the status of zombie %zu is %#x", i, status);
    }
    subject_pass();
}
