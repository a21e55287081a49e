/* Settings that each thread has for itself: parent-death signal, refused CPUID; and the process's table of waiters. */
#include "../subject.h"
#include <asm/prctl.h>
#include <cpuid.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#ifndef PR_FUTEX_HASH
#define PR_FUTEX_HASH 78
#define PR_FUTEX_HASH_SET_SLOTS 1
#define PR_FUTEX_HASH_GET_SLOTS 2
#endif
#define SLOTS 64

static volatile int going = 1;
static bool can_refuse;
static volatile sig_atomic_t refusals;

static void refused(int number)
{
    (void)number;
    refusals++;
    MUST(syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1)); /* so that it is done when it is tried again */
}

static void *other(void *arg)
{
    MUST(prctl(PR_SET_PDEATHSIG, SIGURG));
    if (can_refuse)
        MUST(syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0));
    while (going)
        subject_tick();
    int value = -1;
    MUST(prctl(PR_GET_PDEATHSIG, &value));
    EXPECT(value == SIGURG, "the parent-death signal is %d", value);
    unsigned a, b, c, d;
    __cpuid(0, a, b, c, d);
    EXPECT(refusals == can_refuse, "CPUID was refused %d times", (int)refusals);
    return arg;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    can_refuse = syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1) == 0;
    MUST(signal(SIGSEGV, refused) == SIG_ERR ? -1 : 0);
    bool has_table = prctl(PR_FUTEX_HASH, PR_FUTEX_HASH_SET_SLOTS, SLOTS, 0, 0) == 0;
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, other, NULL));
    subject_all_asleep(1);
    subject_wait(NULL);

    int value = -1;
    MUST(prctl(PR_GET_PDEATHSIG, &value));
    EXPECT(value == 0, "the first thread has the other's parent-death signal, %d", value);
    if (can_refuse)
        EXPECT(MUST(syscall(SYS_arch_prctl, ARCH_GET_CPUID, 0)) == 1, "CPUID is refused to the first thread");
    if (has_table)
        EXPECT(prctl(PR_FUTEX_HASH, PR_FUTEX_HASH_GET_SLOTS, 0, 0, 0) == SLOTS, "the table of waiters has %d slots",
               prctl(PR_FUTEX_HASH, PR_FUTEX_HASH_GET_SLOTS, 0, 0, 0));
    going = 0;
    MUST0(pthread_join(thread, NULL));
    subject_pass();
}
