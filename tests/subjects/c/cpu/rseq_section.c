/* A thread in the midst of a restartable sequence: it is aborted, never entered again half-way. */
#include "../subject.h"
#include <pthread.h>
#include <sched.h>
#include <sys/rseq.h>
#include <sys/syscall.h>

static struct rseq *area;
static volatile unsigned stop, entered, aborted, torn;

/* The sequence says that it runs, and goes round until it is told to stop or is not announced any more: the latter is
 * what may never be seen from inside. */
static void *spin(void *unused)
{
    (void)unused;
    area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    while (!stop) {
        unsigned seen = 0;
        __asm__ volatile(
            ".pushsection __rseq_cs_test, \"aw\"\n\t"
            ".balign 32\n\t"
            "9: .long 0, 0\n\t"
            ".quad 1f, 2f - 1f, 4f\n\t"
            ".popsection\n\t"
            "leaq 9b(%%rip), %%rax\n\t"
            "movq %%rax, 8(%[area])\n\t"
            "1:\n\t"
            "movl $1, %[entered]\n\t"
            "3: cmpq %%rax, 8(%[area])\n\t"
            "jne 5f\n\t"
            "cmpl $0, %[stop]\n\t"
            "je 3b\n\t"
            "jmp 2f\n\t"
            "5: movl $1, %[seen]\n\t"
            "2:\n\t"
            "jmp 6f\n\t"
            ".byte 0x0f, 0xb9, 0x3d\n\t"
            ".long 0x53053053\n\t"
            "4: movl $2, %[seen]\n\t"
            "6:\n\t"
            : [seen] "+r"(seen), [entered] "=m"(entered)
            : [area] "r"(area), [stop] "m"(stop)
            : "rax", "memory", "cc");
        torn += seen == 1;
        aborted += seen == 2;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (__rseq_size == 0)
        subject_skip("no rseq registration by the C library");
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, spin, NULL) == 0, "setting up");
    while (!entered)
        sched_yield();
    subject_wait(NULL);
    stop = 1;
    pthread_join(thread, NULL);
    EXPECT(torn == 0, "%u times inside a sequence that nobody guarded, %u times aborted", torn, aborted);
    subject_pass();
}
