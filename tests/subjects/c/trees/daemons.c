/* Daemons: forked twice, so that their session's leader has ended, and adopted; one leads a group of its own. */
#include "tree.h"
#include <sys/prctl.h>

#define COUNT 3
struct place {
    pid_t pid, group, session;
};
static int report[2], told[2];

static struct place here(void)
{
    return (struct place){getpid(), getpgrp(), getsid(0)};
}

static _Noreturn void daemon_life(int own_group)
{
    if (own_group)
        MUST(setpgid(0, 0));
    while (getppid() != subject_root)
        subject_tick();
    struct place before = here();
    MUST(write(report[1], &before, sizeof before));
    child_wait(told[0]);
    struct place now = here();
    int same = !memcmp(&now, &before, sizeof now) && getppid() == subject_root;
    _exit(same ? 40 : 41);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
    MUST(pipe(report));
    MUST(pipe(told));
    pid_t leader = (pid_t)MUST(fork());
    if (leader == 0) {
        close(told[1]);
        MUST(setsid());
        for (int i = 0; i < COUNT; i++)
            if (MUST(fork()) == 0)
                daemon_life(i == 1);
        _exit(0);
    }
    MUST(waitpid(leader, NULL, 0));
    close(told[0]);
    struct place places[COUNT];
    for (int i = 0; i < COUNT; i++) {
        EXPECT(read(report[0], &places[i], sizeof places[i]) == sizeof places[i], "setting up");
        EXPECT(places[i].session == leader, "setting up: session %d", (int)places[i].session);
    }
    subject_wait(NULL);
    for (int i = 0; i < COUNT; i++) {
        EXPECT(getsid(places[i].pid) == leader, "a daemon's session is %d, not %d", (int)getsid(places[i].pid), (int)leader);
        EXPECT(getpgid(places[i].pid) == places[i].group, "a daemon's group is %d", (int)getpgid(places[i].pid));
    }
    MUST(write(told[1], "xxx", COUNT));
    for (int i = 0; i < COUNT; i++) {
        int status;
        pid_t ended = (pid_t)MUST(wait(&status));
        EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 40, "daemon %d: status %#x", (int)ended, status);
    }
    EXPECT(wait(NULL) == -1 && errno == ECHILD, "there are more children than before");
    subject_pass();
}
