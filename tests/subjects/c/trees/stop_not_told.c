/* A child that was stopped, and continued, of which the parent has not heard yet: it hears of it afterwards. */
#include "tree.h"

static int work(int told, void *argument)
{
    (void)argument;
    MUST(setpgid(0, 0)); /* in a group whose parents are all in other sessions, SIGTSTP stops nobody */
    child_wait(told);
    return 5;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct child stopped = child_start(work, NULL), continued = child_start(work, NULL);
    int status;
    while (getpgid(stopped.pid) != stopped.pid || getpgid(continued.pid) != continued.pid)
        subject_tick();
    MUST(kill(stopped.pid, SIGTSTP));
    MUST(kill(continued.pid, SIGSTOP));
    while (child_state(stopped.pid) != 'T' || child_state(continued.pid) != 'T')
        subject_tick();
    MUST(waitpid(continued.pid, &status, WUNTRACED));
    MUST(kill(continued.pid, SIGCONT));
    subject_wait(NULL);
    EXPECT(waitpid(stopped.pid, &status, WUNTRACED | WNOHANG) == stopped.pid, "not told of the stop");
    EXPECT(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTSTP, "the stop's status is %#x", status);
    EXPECT(waitpid(continued.pid, &status, WCONTINUED | WNOHANG) == continued.pid, "not told that it goes on");
    EXPECT(WIFCONTINUED(status), "its status is %#x", status);
    MUST(kill(stopped.pid, SIGCONT));
    child_tell(stopped);
    child_expect_exit(stopped, 5, "the stopped one");
    child_tell(continued);
    child_expect_exit(continued, 5, "the continued one");
    subject_pass();
}
