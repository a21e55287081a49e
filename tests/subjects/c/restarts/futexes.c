/* Threads blocked in every futex call: wait with a bit set, waitv, lock_pi, a condition of a PI mutex, a read lock. */
#include "blocked.h"
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
struct waiter {
    uint64_t value, address;
    uint32_t flags, reserved;
};

static uint32_t word, several[3];
static pthread_mutex_t held, inheriting;
static pthread_cond_t told = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t written = PTHREAD_RWLOCK_INITIALIZER;
static bool ready;

static long by_bitset(void)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 600;
    return syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 0, &until, NULL, 0x10);
}
static void wake_bitset(void)
{
    EXPECT(syscall(SYS_futex, &word, FUTEX_WAKE_BITSET_PRIVATE, 1, NULL, NULL, 0x30) == 1, "nobody waits");
}
static long by_waitv(void)
{
    struct waiter all[3];
    for (int i = 0; i < 3; i++)
        all[i] = (struct waiter){0, (uintptr_t)&several[i], 2 | 128, 0};
    return syscall(SYS_futex_waitv, all, 3, 0, NULL, 0);
}
static void wake_waitv(void)
{
    if (syscall(SYS_futex, &several[1], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) != 1)
        several[1] = 1; /* where the call does not exist it has ended long ago */
}
static long by_lock_pi(void)
{
    int error = pthread_mutex_lock(&held);
    return error ? -error : 0;
}
static void wake_lock_pi(void) { MUST0(pthread_mutex_unlock(&held)); }
static long by_condition(void)
{
    MUST0(pthread_mutex_lock(&inheriting));
    while (!ready)
        MUST0(pthread_cond_wait(&told, &inheriting));
    MUST0(pthread_mutex_unlock(&inheriting));
    return 0;
}
static void wake_condition(void)
{
    MUST0(pthread_mutex_lock(&inheriting));
    ready = true;
    MUST0(pthread_cond_signal(&told));
    MUST0(pthread_mutex_unlock(&inheriting));
}
static long by_rwlock(void) { return pthread_rwlock_rdlock(&written); }
static void wake_rwlock(void) { MUST0(pthread_rwlock_unlock(&written)); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setprotocol(&kind, PTHREAD_PRIO_INHERIT);
    MUST0(pthread_mutex_init(&held, &kind));
    MUST0(pthread_mutex_init(&inheriting, &kind));
    MUST0(pthread_mutex_lock(&held));
    MUST0(pthread_rwlock_wrlock(&written));
    struct blocked all[] = {WAITS("FUTEX_WAIT_BITSET", bitset, 0),
                            WAITS("futex_waitv", waitv, 1),
                            WAITS("FUTEX_LOCK_PI", lock_pi, 0),
                            WAITS("pthread_cond_wait", condition, 0),
                            WAITS("pthread_rwlock_rdlock", rwlock, 0)};
    BLOCKED_THROUGH(all);
    subject_pass();
}
