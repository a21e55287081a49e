/* An alternate stack with SS_AUTODISARM: dumped while the handler runs on it, when there officially is none. */
#include "../subject.h"
#include <signal.h>

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif
static char stack[131072];

static void handler(int number)
{
    (void)number;
    stack_t now;
    subject_wait(NULL);
    MUST(sigaltstack(NULL, &now));
    EXPECT(now.ss_flags & SS_DISABLE, "inside the handler the stack is armed: flags %#x", now.ss_flags);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    stack_t wanted = {.ss_sp = stack, .ss_size = sizeof stack, .ss_flags = (int)SS_AUTODISARM}, now;
    MUST(sigaltstack(&wanted, NULL));
    MUST(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = handler, .sa_flags = SA_ONSTACK}, NULL));
    MUST(raise(SIGUSR1));
    MUST(sigaltstack(NULL, &now));
    EXPECT(now.ss_sp == stack && now.ss_flags == (int)SS_AUTODISARM, "afterwards: flags %#x", now.ss_flags);
    subject_pass();
}
