/* Parent and child signal each other afterwards, by the pids they know; SIGCHLD comes with siginfo. */
#include "tree.h"

static volatile sig_atomic_t from_child, child_code, child_status;
static volatile pid_t child_pid;

static void handler(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (number == SIGUSR1)
        from_child = info->si_value.sival_int;
    else
        child_code = info->si_code, child_status = info->si_status, child_pid = info->si_pid;
}

static int work(int told, void *argument)
{
    (void)argument;
    child_wait(told);
    MUST(sigqueue(getppid(), SIGUSR1, (union sigval){.sival_int = 808}));
    for (;;)
        pause();
    return 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction act = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
    MUST(sigaction(SIGUSR1, &act, NULL));
    MUST(sigaction(SIGCHLD, &act, NULL));
    struct child child = child_start(work, NULL);
    subject_wait(NULL);
    EXPECT(child_pid == 0, "SIGCHLD came by itself, code %d", (int)child_code);
    child_tell(child);
    for (int i = 0; i < 1000 && !from_child; i++)
        subject_tick();
    EXPECT(from_child == 808, "the child's signal carries %d", (int)from_child);
    MUST(kill(child.pid, SIGTERM));
    for (int i = 0; i < 1000 && !child_pid; i++)
        subject_tick();
    EXPECT(child_pid == child.pid && child_code == CLD_KILLED && child_status == SIGTERM, "SIGCHLD of %d: code %d",
           (int)child_pid, (int)child_code);
    subject_pass();
}
