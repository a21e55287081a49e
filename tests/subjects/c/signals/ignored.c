/* Signals that are ignored, children that leave no zombies, a handler that is used once, restarting and not. */
#include "../subject.h"
#include <signal.h>
#include <sys/wait.h>

static volatile sig_atomic_t got;
static void handler(int number) { got = number; }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(sigaction(SIGCHLD, &(struct sigaction){.sa_handler = SIG_IGN}, NULL));
    MUST(sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL));
    MUST(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = handler, .sa_flags = SA_RESETHAND}, NULL));
    MUST(sigaction(SIGALRM, &(struct sigaction){.sa_handler = handler}, NULL));
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGPIPE);
    MUST(sigprocmask(SIG_BLOCK, &blocked, NULL));
    subject_wait(NULL);
    int ends[2];
    MUST(pipe(ends));
    MUST(close(ends[0]));
    EXPECT(write(ends[1], "x", 1) == -1 && errno == EPIPE, "writing to nobody");
    pid_t child = (pid_t)MUST(fork());
    if (child == 0)
        _exit(0);
    EXPECT(waitpid(child, NULL, 0) == -1 && errno == ECHILD, "the child left a zombie");
    MUST(raise(SIGUSR1));
    struct sigaction now;
    MUST(sigaction(SIGUSR1, NULL, &now));
    EXPECT(got == SIGUSR1 && now.sa_handler == SIG_DFL, "the handler was not for once");
    MUST(pipe(ends));
    alarm(1);
    char byte;
    EXPECT(read(ends[0], &byte, 1) == -1 && errno == EINTR && got == SIGALRM, "SIGALRM does not interrupt a read");
    subject_pass();
}
