/*
 * Settings that each thread has for itself: parent-death signal, refused CPUID, personality, PR_SET_KEEPCAPS,
 * PR_MCE_KILL; and the process's table of waiters. One thread has the opposite of what the first has, one inherits.
 */
#include "../subject.h"
#include <asm/prctl.h>
#include <cpuid.h>
#include <pthread.h>
#include <signal.h>
#include <sys/personality.h>
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

/* What the calling thread has. */
static void expect_own(int domain, int keeps, int mce, const char *who)
{
    int now = personality(0xffffffff), kept = prctl(PR_GET_KEEPCAPS), kill = prctl(PR_MCE_KILL_GET, 0, 0, 0, 0);
    EXPECT(now == domain, "%s has personality %#x", who, now);
    EXPECT(kept == keeps, "%s has PR_SET_KEEPCAPS %d", who, kept);
    EXPECT(kill == mce, "%s has PR_MCE_KILL %d", who, kill);
}

static volatile int sleepers;

static void *heir(void *arg)
{
    __atomic_fetch_add(&sleepers, 1, __ATOMIC_SEQ_CST);
    while (going)
        subject_tick();
    expect_own(ADDR_NO_RANDOMIZE, 1, PR_MCE_KILL_EARLY, "a thread that inherits");
    return arg;
}

static void *other(void *arg)
{
    MUST(personality(UNAME26));
    MUST(prctl(PR_SET_KEEPCAPS, 0));
    MUST(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_DEFAULT, 0, 0));
    MUST(prctl(PR_SET_PDEATHSIG, SIGURG));
    if (can_refuse)
        MUST(syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0));
    __atomic_fetch_add(&sleepers, 1, __ATOMIC_SEQ_CST);
    while (going)
        subject_tick();
    expect_own(UNAME26, 0, PR_MCE_KILL_DEFAULT, "another thread");
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
    MUST(personality(ADDR_NO_RANDOMIZE));
    MUST(prctl(PR_SET_KEEPCAPS, 1));
    MUST(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0));
    pthread_t thread, inheriting;
    MUST0(pthread_create(&thread, NULL, other, NULL));
    MUST0(pthread_create(&inheriting, NULL, heir, NULL));
    while (sleepers < 2)
        subject_tick();
    subject_wait(NULL);

    expect_own(ADDR_NO_RANDOMIZE, 1, PR_MCE_KILL_EARLY, "the first thread");
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
    MUST0(pthread_join(inheriting, NULL));
    subject_pass();
}
