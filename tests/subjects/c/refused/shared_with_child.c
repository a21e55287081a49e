/* A child that shares our memory, our descriptors or our folders and is no thread, by argument: refused by name. */
#include "../subject.h"
#include <sched.h>
#include <signal.h>
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

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *what = argc > 2 ? argv[2] : "memory";
    int flag = strcmp(what, "descriptors") == 0 ? CLONE_FILES : strcmp(what, "folders") == 0 ? CLONE_FS : CLONE_VM;
    pid_t child = (pid_t)MUST(clone(run, stack + sizeof stack, flag | SIGCHLD, NULL));
    subject_wait(NULL);
    end = true;
    int status;
    MUST(waitpid(child, &status, 0));
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 7, "the child's status is %#x", status);
    subject_pass();
}
