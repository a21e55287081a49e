/* A child in a namespace of its own (argv[2]): refused by name. */
#include "tree.h"
#include <sched.h>

static int work(int told, void *argument)
{
    const char *what = argument;
    if (unshare(!strcmp(what, "pid") ? CLONE_NEWPID : CLONE_NEWUSER) == -1)
        subject_skip("user namespaces");
    pid_t inside = (pid_t)MUST(fork());
    if (inside == 0) {
        subject_announce("ready");
        child_wait(told);
        _exit(3);
    }
    int status;
    MUST(waitpid(inside, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct child child = child_start(work, argc > 2 ? argv[2] : "user");
    while (access(subject_go, F_OK) != 0)
        subject_tick();
    child_tell(child);
    child_expect_exit(child, 3, "the child");
    subject_pass();
}
