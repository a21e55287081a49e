/* A child that its parent traces, as a debugger does: refused by name. */
#include "../subject.h"
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pid_t child = (pid_t)MUST(fork());
    if (child == 0) {
        MUST(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
        raise(SIGSTOP);
        _exit(5);
    }
    int status;
    MUST(waitpid(child, &status, 0));
    EXPECT(WIFSTOPPED(status), "setting up");
    subject_wait(NULL);
    MUST(ptrace(PTRACE_CONT, child, NULL, NULL));
    MUST(waitpid(child, &status, 0));
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 5, "the child's status is %#x", status);
    subject_pass();
}
