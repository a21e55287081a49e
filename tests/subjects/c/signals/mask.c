/* The blocked set. */
#include "../subject.h"
#include <signal.h>

static void spoil(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigset_t before, after;
    sigemptyset(&before);
    for (int n = 1; n < 65; n += 3)
        if (n != SIGKILL && n != SIGSTOP && n != 32 && n != 33)
            sigaddset(&before, n);
    MUST(sigprocmask(SIG_SETMASK, &before, NULL));
    subject_wait(spoil);
    MUST(sigprocmask(SIG_SETMASK, NULL, &after));
    for (int n = 1; n < 65; n++)
        EXPECT(sigismember(&before, n) == sigismember(&after, n), "signal %d is %sblocked", n,
               sigismember(&after, n) ? "" : "not ");
    subject_pass();
}
