/* Orphans of a session that lives on: adopted by the root, while their session's leader is its child or its grandchild. */
#include "tree.h"
#include <sys/prctl.h>

static int report[2], told[2];

static _Noreturn void orphan(pid_t session)
{
    close(told[1]);
    while (getppid() != subject_root)
        subject_tick();
    MUST(write(report[1], &session, sizeof session));
    child_wait(told[0]);
    _exit(getsid(0) == session && getppid() == subject_root ? 50 : 51);
}

/* Leads a session in which an orphan is left. */
static int lead(int listens, void *argument)
{
    (void)argument;
    pid_t session = (pid_t)MUST(setsid());
    pid_t middle = (pid_t)MUST(fork());
    if (middle == 0) {
        if (fork() == 0)
            orphan(session);
        _exit(0);
    }
    MUST(waitpid(middle, NULL, 0));
    child_wait(listens);
    return getsid(0) == getpid() ? 0 : 1;
}

static int above(int listens, void *argument)
{
    struct child child = child_start(lead, argument);
    child_wait(listens);
    child_tell(child);
    child_expect_exit(child, 0, "the deeper leader");
    return 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
    MUST(pipe(report));
    MUST(pipe(told));
    struct child children[2] = {child_start(lead, NULL), child_start(above, NULL)};
    close(told[0]);
    pid_t sessions[2];
    EXPECT(read(report[0], &sessions[0], sizeof *sessions) == sizeof *sessions, "setting up");
    EXPECT(read(report[0], &sessions[1], sizeof *sessions) == sizeof *sessions, "setting up");
    subject_wait(NULL);
    MUST(write(told[1], "xx", 2));
    for (int i = 0, status; i < 2; i++) {
        pid_t ended = (pid_t)MUST(wait(&status));
        EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 50, "orphan %d: status %#x", (int)ended, status);
    }
    for (int i = 0; i < 2; i++) {
        child_tell(children[i]);
        child_expect_exit(children[i], 0, "a leader");
    }
    subject_pass();
}
