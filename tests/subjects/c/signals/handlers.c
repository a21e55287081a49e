/* Every signal's action: handler, flags, mask; default and ignored ones too. */
#include "../subject.h"
#include <signal.h>

static volatile sig_atomic_t calls, last_value;

static void plain(int number) { calls += number; }
static void informed(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    last_value = info->si_value.sival_int;
}

static struct sigaction actions[65];

static void spoil(void)
{
    for (int n = 1; n < 65; n++)
        signal(n, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
}

static bool settable(int n) { return n != SIGKILL && n != SIGSTOP && n != 32 && n != 33; }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    for (int n = 1; n < 65; n++) {
        if (!settable(n))
            continue;
        struct sigaction act = {0};
        if (n % 4 == 0)
            act.sa_handler = SIG_IGN;
        else if (n % 4 == 1)
            act.sa_handler = plain, act.sa_flags = SA_RESTART | (n % 8 == 1 ? SA_NODEFER : 0);
        else if (n % 4 == 2)
            act.sa_sigaction = informed, act.sa_flags = SA_SIGINFO | SA_ONSTACK;
        else
            act.sa_handler = SIG_DFL;
        if (n == SIGCHLD)
            act.sa_handler = SIG_DFL, act.sa_flags = SA_NOCLDSTOP | SA_NOCLDWAIT;
        sigemptyset(&act.sa_mask);
        sigaddset(&act.sa_mask, 1 + n % 31);
        MUST(sigaction(n, &act, NULL));
        MUST(sigaction(n, NULL, &actions[n]));
    }
    subject_wait(spoil);
    for (int n = 1; n < 65; n++) {
        if (!settable(n))
            continue;
        struct sigaction now;
        MUST(sigaction(n, NULL, &now));
        EXPECT(now.sa_handler == actions[n].sa_handler, "the handler of signal %d changed", n);
        if (now.sa_handler == SIG_DFL) { /* only these flags mean something to a default action */
            int lasting = SA_NOCLDSTOP | SA_NOCLDWAIT;
            EXPECT((now.sa_flags & lasting) == (actions[n].sa_flags & lasting), "the default action of signal %d", n);
            continue;
        }
        EXPECT(now.sa_flags == actions[n].sa_flags, "the flags of signal %d are %#x", n, now.sa_flags);
        for (int m = 1; m < 65; m++)
            EXPECT(sigismember(&now.sa_mask, m) == sigismember(&actions[n].sa_mask, m), "mask of signal %d", n);
    }
    raise(SIGILL + 1); /* 5, plain */
    EXPECT(calls == 5, "the plain handler was not called");
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 4711});
    EXPECT(last_value == 4711 || SIGUSR1 % 4 != 2, "the siginfo handler got %d", (int)last_value);
    subject_pass();
}
