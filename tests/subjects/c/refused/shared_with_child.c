/* A child that shares our memory and is no thread, or, by argument, tables with the child of its sibling: refused. */
#include "../subject.h"
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static char stack[65536] __attribute__((aligned(16)));
static volatile bool end;

static int run(void *argument)
{
    (void)argument;
    while (!end && access(subject_go, F_OK) != 0)
        subject_tick();
    return 7;
}

/* A middle one forks a child that shares its descriptors, then has others itself: the next but one shares with that. */
static int run_with_nephew(void *argument)
{
    pid_t other = (pid_t)MUST(syscall(SYS_clone, CLONE_FILES | CLONE_PARENT | SIGCHLD, 0, 0, 0, 0));
    if (other == 0) {
        pid_t below = (pid_t)MUST(syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0));
        if (below == 0)
            _exit(run(argument));
        MUST(unshare(CLONE_FILES));
        run(argument);
        MUST(waitpid(below, NULL, 0));
        _exit(7);
    }
    return run(argument);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool nephew = argc > 2;
    pid_t child = (pid_t)MUST(
        nephew ? clone(run_with_nephew, stack + sizeof stack, SIGCHLD, NULL)
               : clone(run, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL)
    );
    subject_wait(NULL);
    end = true;
    int status;
    MUST(waitpid(child, &status, 0));
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 7, "the child's status is %#x", status);
    if (nephew)
        MUST(waitpid(-1, &status, 0));
    subject_pass();
}
