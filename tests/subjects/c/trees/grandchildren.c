/* Three generations; the middle one waits for the youngest inside wait4 while it is dumped. */
#include "tree.h"

static int youngest(int told, void *argument)
{
    (void)argument;
    child_wait(told);
    return 7;
}

static int middle(int told, void *argument)
{
    (void)argument;
    struct child child = child_start(youngest, NULL);
    int status;
    /* the youngest listens to the pipe of the oldest: pass the byte on by a thread of control of its own */
    pid_t forwarder = (pid_t)MUST(fork());
    if (forwarder == 0) {
        child_wait(told);
        child_tell(child);
        _exit(3);
    }
    close(child.tell);
    pid_t got = waitpid(child.pid, &status, 0);
    EXPECT(got == child.pid && WIFEXITED(status) && WEXITSTATUS(status) == 7, "wait4 in the middle: %d, %#x", (int)got,
           status);
    got = waitpid(forwarder, &status, 0);
    EXPECT(got == forwarder && WEXITSTATUS(status) == 3, "the second grandchild: %#x", status);
    return 8;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct child child = child_start(middle, NULL);
    subject_wait(NULL);
    child_tell(child);
    child_expect_exit(child, 8, "the middle one");
    subject_pass();
}
