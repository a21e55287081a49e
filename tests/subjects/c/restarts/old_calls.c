/* Threads of 64 bits that wait in system calls of 32 bits (int 0x80): their numbers mean other calls. */
#include "blocked.h"
#include <sys/mman.h>

static int ends[2];
static int *low; /* what a pointer of 32 bits can reach */

static long old_call(long number, long one, long two, long three)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(one), "c"(two), "d"(three), "S"(0), "D"(0)
                     : "memory", "r8", "r9", "r10", "r11");
    return result;
}
static long by_read(void) { return old_call(3, ends[0], (long)low, 4); }
static void wake_read(void) { MUST(write(ends[1], "four", 4)); }
static long by_futex(void) { return old_call(240, (long)(low + 20), 0, 0); }
static void wake_futex(void)
{
    while (old_call(240, (long)(low + 20), 1, 1) != 1)
        subject_tick();
}
static long by_nanosleep(void)
{
    low[10] = 2;
    return old_call(162, (long)(low + 10), 0, 0);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    low = MUST_MAP(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0));
    if (old_call(20, 0, 0, 0) != getpid())
        subject_skip("an OS kernel with system calls of 32 bits");
    MUST(pipe(ends));
    struct blocked all[] = {WAITS("read", read, 4), WAITS("futex", futex, 0), WAITS_ALONE("nanosleep", nanosleep, 0)};
    all[2].may_end = true;
    BLOCKED_THROUGH(all);
    EXPECT(memcmp(low, "four", 4) == 0, "read: %.4s", (char *)low);
    subject_pass();
}
