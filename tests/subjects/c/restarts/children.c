/* Threads blocked in wait4 and waitid, for a pid, for any of a group, by a pidfd. */
#include "blocked.h"
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static pid_t children[3];
static int pidfd;

static long by_wait4(void)
{
    int status;
    return wait4(children[0], &status, 0, NULL) == children[0] && WTERMSIG(status) == SIGTERM;
}
static long by_group(void)
{
    siginfo_t info;
    return waitid(P_PGID, (id_t)children[1], &info, WEXITED) == 0 && info.si_pid == children[1];
}
static long by_pidfd(void)
{
    siginfo_t info;
    return waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) == 0 && info.si_pid == children[2] && info.si_status == SIGTERM;
}
static void wake_wait4(void) { MUST(kill(children[0], SIGTERM)); }
static void wake_group(void) { MUST(kill(children[1], SIGTERM)); }
static void wake_pidfd(void) { MUST(kill(children[2], SIGTERM)); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    for (int i = 0; i < 3; i++) {
        children[i] = (pid_t)MUST(fork());
        if (children[i] == 0) {
            if (i == 1)
                setpgid(0, 0);
            for (;;)
                pause();
        }
    }
    setpgid(children[1], children[1]);
    pidfd = (int)MUST(syscall(SYS_pidfd_open, children[2], 0));
    struct blocked all[] = {WAITS("wait4", wait4, 1),
                            WAITS("waitid for a group", group, 1),
                            WAITS("waitid by a pidfd", pidfd, 1)};
    BLOCKED_THROUGH(all);
    subject_pass();
}
