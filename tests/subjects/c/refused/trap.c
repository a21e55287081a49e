/* A SIGTRAP that is blocked and waits: refused by name. Tracing takes that signal for its own. */
#include "../subject.h"
#include <signal.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigset_t trap;
    sigemptyset(&trap);
    sigaddset(&trap, SIGTRAP);
    MUST(sigprocmask(SIG_BLOCK, &trap, NULL));
    MUST(kill(getpid(), SIGTRAP));
    subject_wait(NULL);
    sigset_t waits;
    MUST(sigpending(&waits));
    EXPECT(sigismember(&waits, SIGTRAP), "it was taken away");
    subject_pass();
}
