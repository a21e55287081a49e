/* A child's parent-death signal is set still and comes when the parent ends. */
#include "tree.h"
#include <sys/prctl.h>

static int report[2];

static int youngest(int told, void *argument)
{
    (void)argument;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    MUST(prctl(PR_SET_PDEATHSIG, SIGUSR2));
    MUST(write(report[1], "r", 1));
    child_wait(told);
    MUST(write(report[1], "g", 1));
    siginfo_t info;
    struct timespec limit = {10, 0};
    int got = sigtimedwait(&set, &info, &limit);
    MUST(write(report[1], got == SIGUSR2 ? "y" : "n", 1));
    return 0;
}

static int middle(int told, void *argument)
{
    (void)argument;
    int ends[2];
    MUST(pipe(ends));
    if (fork() == 0)
        _exit(youngest(ends[0], NULL));
    child_wait(told);
    MUST(write(ends[1], "x", 1));
    child_wait(told);
    return 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(pipe(report));
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
    struct child child = child_start(middle, NULL);
    char byte = 0;
    EXPECT(read(report[0], &byte, 1) == 1 && byte == 'r', "setting up");
    subject_wait(NULL);
    child_tell(child);
    EXPECT(read(report[0], &byte, 1) == 1 && byte == 'g', "the grandchild does not go on");
    child_tell(child);
    child_expect_exit(child, 0, "the middle one");
    EXPECT(read(report[0], &byte, 1) == 1 && byte == 'y', "no parent-death signal");
    subject_pass();
}
