/* A thread blocked in wait4 for children of every sort (__WALL): it must not be given one that is not the program's. */
#include "blocked.h"
#include <signal.h>
#include <sys/wait.h>

static pid_t child;

static long by_any(void)
{
    int status;
    return wait4(-1, &status, __WALL, NULL) == child && WTERMSIG(status) == SIGTERM;
}
static void wake_any(void) { MUST(kill(child, SIGTERM)); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    child = (pid_t)MUST(fork());
    while (child == 0)
        pause();
    struct blocked all[] = {WAITS("wait4 for any child", any, 1)};
    BLOCKED_THROUGH(all);
    subject_pass();
}
