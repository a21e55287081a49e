/* Dumped in a handler that interrupted another handler, one of them on the alternate stack; then siglongjmp out of both. */
#include "../subject.h"
#include <setjmp.h>
#include <signal.h>

static char stack[131072];
static sigjmp_buf out;
static int depth;
static void *faulty;

static void inner(int number, siginfo_t *info, void *context)
{
    (void)context;
    EXPECT(number == SIGUSR2 && info->si_value.sival_int == 31, "the inner handler's value");
    depth++;
    subject_wait(NULL);
    EXPECT(number == SIGUSR2 && info->si_value.sival_int == 31, "the inner handler's value changed to %d",
           info->si_value.sival_int);
    siglongjmp(out, 5);
}

static void outer(int number, siginfo_t *info, void *context)
{
    (void)context;
    char local[500];
    subject_fill(local, sizeof local, 1);
    EXPECT(number == SIGSEGV && info->si_addr == faulty, "the fault is at %p", info->si_addr);
    depth++;
    MUST(sigqueue(getpid(), SIGUSR2, (union sigval){.sival_int = 31}));
    EXPECT_FILLED(local, sizeof local, 1, "the outer handler's frame");
    subject_fail("the inner handler came back");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    stack_t wanted = {.ss_sp = stack, .ss_size = sizeof stack}, now;
    MUST(sigaltstack(&wanted, NULL));
    struct sigaction act = {.sa_sigaction = outer, .sa_flags = SA_ONSTACK | SA_SIGINFO | SA_NODEFER};
    MUST(sigaction(SIGSEGV, &act, NULL));
    act.sa_sigaction = inner, act.sa_flags = SA_SIGINFO;
    MUST(sigaction(SIGUSR2, &act, NULL));
    faulty = (void *)16;
    volatile double kept = 1.25;
    if (sigsetjmp(out, 1) == 0) {
        *(volatile char *)faulty = 1;
        subject_fail("no fault");
    }
    EXPECT(depth == 2 && kept == 1.25, "%d handlers ran", depth);
    sigset_t set;
    sigprocmask(SIG_SETMASK, NULL, &set);
    EXPECT(!sigismember(&set, SIGUSR2) && !sigismember(&set, SIGSEGV), "the mask did not come back");
    MUST(sigaltstack(NULL, &now));
    EXPECT(!(now.ss_flags & SS_ONSTACK) && now.ss_sp == stack, "the alternate stack");
    subject_pass();
}
