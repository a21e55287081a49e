/* Dead children that nobody has waited for, in the group of a living one and in one whose leader is gone altogether. */
#include "tree.h"

static int stay(int told, void *unused)
{
    (void)unused;
    child_wait(told);
    return 7;
}

static pid_t dead_in(pid_t group)
{
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        MUST(setpgid(0, group));
        _exit(3);
    }
    siginfo_t told;
    MUST(waitid(P_PID, (id_t)pid, &told, WEXITED | WNOWAIT));
    return pid;
}

static void check(pid_t group, pid_t pid, const char *what)
{
    siginfo_t told = {0};
    MUST(waitid(P_PGID, (id_t)group, &told, WEXITED | WNOHANG));
    EXPECT(told.si_pid == pid && told.si_status == 3, "%s: waiting for the group gives %d", what, (int)told.si_pid);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct child lives = child_start(stay, NULL), goes = child_start(stay, NULL);
    MUST(setpgid(lives.pid, lives.pid));
    MUST(setpgid(goes.pid, goes.pid));
    pid_t one = dead_in(lives.pid), other = dead_in(goes.pid);
    child_tell(goes);
    child_expect_exit(goes, 7, "the leader");
    subject_wait(NULL);
    check(lives.pid, one, "of a living one");
    check(goes.pid, other, "without a leader");
    child_tell(lives);
    child_expect_exit(lives, 7, "the one that lives");
    subject_pass();
}
