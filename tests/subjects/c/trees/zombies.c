/* Children that ended and were not waited for: by exit, by a signal; their statuses. */
#include "tree.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pid_t exited = (pid_t)MUST(fork());
    if (exited == 0)
        _exit(42);
    pid_t killed = (pid_t)MUST(fork());
    if (killed == 0) {
        raise(SIGKILL);
        _exit(0);
    }
    for (int i = 0; i < 1000 && (child_state(exited) != 'Z' || child_state(killed) != 'Z'); i++)
        subject_tick();
    subject_wait(NULL);
    int status = 0;
    EXPECT(child_state(exited) == 'Z', "the zombie's state is %c", child_state(exited));
    EXPECT(waitpid(exited, &status, WNOHANG) == exited, "the zombie is gone");
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 42, "its status is %#x", status);
    EXPECT(waitpid(killed, &status, WNOHANG) == killed, "the killed one is gone");
    EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "its status is %#x", status);
    subject_pass();
}
