/* SIGTRAP is ignored, as in programs that defend themselves against breakpoints; their child sleeps, to be restarted. */
#include "../subject.h"
#include <signal.h>
#include <sys/wait.h>

static void spoil(void) { signal(SIGTRAP, SIG_DFL); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(sigaction(SIGTRAP, &(struct sigaction){.sa_handler = SIG_IGN, .sa_flags = SA_RESTART}, NULL));
    int ends[2];
    MUST(pipe(ends));
    pid_t child = (pid_t)MUST(fork());
    if (child == 0) {
        char byte;
        ssize_t got = read(ends[0], &byte, 1);
        _exit(got == 1 && raise(SIGTRAP) == 0 ? 3 : 4);
    }
    subject_wait(spoil);
    struct sigaction now;
    MUST(sigaction(SIGTRAP, NULL, &now));
    EXPECT(now.sa_handler == SIG_IGN && now.sa_flags & SA_RESTART, "SIGTRAP is not ignored any more");
    MUST(raise(SIGTRAP));
    MUST(write(ends[1], "x", 1));
    int status;
    MUST(wait(&status));
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 3, "the child's status is %#x", status);
    subject_pass();
}
