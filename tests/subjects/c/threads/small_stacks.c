/* Threads whose stacks are so small, and so close to each other, that a signal frame for one reaches into the next. */
#include "../subject.h"
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>

enum { THREADS = 8, STACK = 2048, KEPT = 400, ROOM = 32768 };
enum { FLAGS = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM };

static char stacks[ROOM + THREADS * STACK] __attribute__((aligned(4096)));
static volatile int word, ended, wrong;

static long call(long number, long one, long two, long three)
{
    long result;
    register long four __asm__("r10") = 0;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(one), "S"(two), "d"(three), "r"(four)
                     : "rcx", "r11", "memory");
    return result;
}

/* it may touch no TLS, which is the main thread's */
__attribute__((optimize("no-stack-protector"))) static int wait_with_a_full_stack(void *argument)
{
    int me = (int)(long)argument;
    volatile unsigned char kept[KEPT];
    for (int i = 0; i < KEPT; i++)
        kept[i] = (unsigned char)(me * 7 + i);
    while (!word)
        call(SYS_futex, (long)&word, FUTEX_WAIT_PRIVATE, 0);
    for (int i = 0; i < KEPT; i++)
        if (kept[i] != (unsigned char)(me * 7 + i))
            __atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&ended, 1, __ATOMIC_SEQ_CST);
    for (;;)
        call(SYS_exit, 0, 0, 0);
    return 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    for (long i = 0; i < THREADS; i++)
        MUST(clone(wait_with_a_full_stack, stacks + ROOM + (i + 1) * STACK, FLAGS, (void *)i));
    subject_all_asleep(THREADS);
    subject_wait(NULL);
    word = 1;
    MUST(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, THREADS, NULL, NULL, 0));
    while (ended < THREADS)
        subject_tick();
    EXPECT(wrong == 0, "%d bytes of the stacks are others", wrong);
    subject_pass();
}
