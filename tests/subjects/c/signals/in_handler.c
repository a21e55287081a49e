/* Dumped inside a handler, on the alternate stack: it returns to what it interrupted, with the old mask. */
#include "../subject.h"
#include <signal.h>

static char stack[131072];

static void handler(int number)
{
    (void)number;
    subject_wait(NULL);
    stack_t now;
    MUST(sigaltstack(NULL, &now));
    EXPECT(now.ss_flags & SS_ONSTACK, "no longer on the alternate stack");
    sigset_t set;
    sigprocmask(SIG_SETMASK, NULL, &set);
    EXPECT(sigismember(&set, SIGTERM), "the handler's mask is gone");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    stack_t wanted = {.ss_sp = stack, .ss_size = sizeof stack};
    MUST(sigaltstack(&wanted, NULL));
    struct sigaction act = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    sigaddset(&act.sa_mask, SIGTERM);
    MUST(sigaction(SIGUSR1, &act, NULL));
    volatile double local = 2.5;
    MUST(raise(SIGUSR1));
    EXPECT(local == 2.5, "what was interrupted lost a value");
    sigset_t set;
    sigprocmask(SIG_SETMASK, NULL, &set);
    EXPECT(!sigismember(&set, SIGTERM) && !sigismember(&set, SIGUSR1), "the mask did not come back");
    stack_t now;
    MUST(sigaltstack(NULL, &now));
    EXPECT(!(now.ss_flags & SS_ONSTACK), "still on the alternate stack");
    subject_pass();
}
