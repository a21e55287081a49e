/* Threads in whose name nothing can be put on a stack: it is full, or the stack pointer is a number to compute with. */
#include "../subject.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { FLAGS = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM };

static volatile int word, ended;
static volatile long count;

/* wait for `word`, note the end, exit: with a stack that it does not use */
__asm__(".text\nsleeper:\n"
        "1:\tmov $202, %eax\n\tlea word(%rip), %rdi\n\tmov $128, %esi\n\txor %edx, %edx\n\txor %r10, %r10\n\tsyscall\n"
        "\tcmpl $0, word(%rip)\n\tje 1b\n\tlock incl ended(%rip)\n\tmov $60, %eax\n\txor %edi, %edi\n\tsyscall\n");

static void *computing(void *argument)
{
    __asm__ volatile("mov %%rsp, %%r14\n\txor %%esp, %%esp\n1:\tincq (%0)\n\tcmpl $0, (%1)\n\tje 1b\n\tmov %%r14, %%rsp"
                     : : "r"(&count), "r"(&word) : "r14", "memory");
    return argument;
}

static void start_sleeper(char *stack)
{
    long tid;
    register long none4 __asm__("r10") = 0, none5 __asm__("r8") = 0;
    __asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\tjmp sleeper\n1:"
                     : "=a"(tid)
                     : "a"(SYS_clone), "D"(FLAGS), "S"(stack), "d"(0), "r"(none4), "r"(none5)
                     : "rcx", "r11", "memory");
    EXPECT(tid > 0, "clone: %ld", tid);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const size_t rooms[] = {16, 1024, 4096};
    for (int i = 0; i < 3; i++) { /* a page between pages that nobody may touch */
        char *page = MUST_MAP(mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        MUST(mprotect(page + 4096, 4096, PROT_READ | PROT_WRITE));
        start_sleeper(page + 4096 + rooms[i]);
    }
    subject_all_asleep(3);
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, computing, NULL));
    while (!count)
        subject_tick();
    subject_wait(NULL);
    for (long before = count; count == before;)
        subject_tick();
    word = 1;
    MUST(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 100, NULL, NULL, 0));
    MUST0(pthread_join(thread, NULL));
    while (ended < 3)
        subject_tick();
    subject_pass();
}
