/* A stopped child stays stopped, and goes on with SIGCONT. */
#include "tree.h"

static int work(int told, void *argument)
{
    (void)argument;
    child_wait(told);
    return 5;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct child child = child_start(work, NULL);
    int status;
    MUST(kill(child.pid, SIGSTOP));
    MUST(waitpid(child.pid, &status, WUNTRACED));
    EXPECT(WIFSTOPPED(status), "setting up: %#x", status);
    subject_wait(NULL);
    EXPECT(child_state(child.pid) == 'T', "its state is '%c'", child_state(child.pid));
    child_tell(child);
    subject_tick();
    EXPECT(waitpid(child.pid, &status, WNOHANG) == 0, "it runs on");
    MUST(kill(child.pid, SIGCONT));
    child_expect_exit(child, 5, "the stopped one");
    subject_pass();
}
