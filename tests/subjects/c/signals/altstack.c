/* The alternate signal stack is known still, and handlers run on it. */
#include "../subject.h"
#include <signal.h>

static char stack[65536];
static volatile bool on_it;

static void handler(int number)
{
    (void)number;
    char here;
    uintptr_t at = (uintptr_t)&here;
    on_it = at > (uintptr_t)stack && at < (uintptr_t)stack + sizeof stack;
}

static void spoil(void)
{
    stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    stack_t wanted = {.ss_sp = stack, .ss_size = sizeof stack}, now;
    MUST(sigaltstack(&wanted, NULL));
    struct sigaction act = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    MUST(sigaction(SIGUSR1, &act, NULL));
    subject_wait(spoil);
    MUST(sigaltstack(NULL, &now));
    EXPECT(now.ss_sp == stack && now.ss_size == sizeof stack && !(now.ss_flags & SS_DISABLE), "it is gone");
    raise(SIGUSR1);
    EXPECT(on_it, "the handler ran on the ordinary stack");
    subject_pass();
}
