/* Sessions and process groups in a tree; a group whose leader has ended; signals to a group. */
#include "tree.h"

static int in_session(int told, void *argument)
{
    (void)argument;
    MUST(setsid());
    child_wait(told);
    EXPECT(getsid(0) == getpid() && getpgrp() == getpid(), "session %d of %d", (int)getsid(0), (int)getpid());
    return 0;
}

static int in_group(int told, void *argument)
{
    pid_t group = *(pid_t *)argument, session = getsid(0);
    MUST(setpgid(0, group));
    group = getpgrp();
    child_wait(told);
    EXPECT(getpgrp() == group, "group %d instead of %d", (int)getpgrp(), (int)group);
    EXPECT(getsid(0) == session, "session %d instead of %d", (int)getsid(0), (int)session);
    child_wait(told); /* until the signal */
    return 1;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static pid_t group;
    struct child session = child_start(in_session, NULL), members[2];
    group = (pid_t)MUST(fork());
    if (group == 0) {
        setpgid(0, 0);
        pause();
        _exit(0);
    }
    setpgid(group, group);
    for (int i = 0; i < 2; i++)
        members[i] = child_start(in_group, &group);
    for (int i = 0; i < 2; i++)
        while (getpgid(members[i].pid) != group)
            subject_tick();
    while (getsid(session.pid) != session.pid)
        subject_tick();
    MUST(kill(group, SIGKILL));
    MUST(waitpid(group, NULL, 0));
    subject_wait(NULL);
    child_tell(session);
    child_expect_exit(session, 0, "the session's leader");
    for (int i = 0; i < 2; i++) {
        EXPECT(getpgid(members[i].pid) == group, "a member's group is %d", (int)getpgid(members[i].pid));
        child_tell(members[i]);
    }
    MUST(killpg(group, SIGTERM));
    for (int i = 0; i < 2; i++) {
        int status;
        MUST(waitpid(members[i].pid, &status, 0));
        EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "the group's signal: status %#x", status);
    }
    subject_pass();
}
