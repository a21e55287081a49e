/* Every general register keeps its value while the thread runs in user mode and in the OS kernel by turns. */
#include "../subject.h"

#define PATTERN(n) (0x0101010101010101ull * (n))

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    subject_announce("ready");
    uint64_t seen[9] = {0};
    /* access(go) in a loop; a system call clobbers rax, rcx and r11 only. rbx holds the path, rbp the place for results. */
    __asm__ volatile("push %%rbp\n\t"
                     "push %%rbx\n\t"
                     "mov %[seen], %%rbp\n\t"
                     "mov %[path], %%rbx\n\t"
                     "movabs $0x0808080808080808, %%r8\n\t"
                     "movabs $0x0909090909090909, %%r9\n\t"
                     "movabs $0x0a0a0a0a0a0a0a0a, %%r10\n\t"
                     "movabs $0x0c0c0c0c0c0c0c0c, %%r12\n\t"
                     "movabs $0x0d0d0d0d0d0d0d0d, %%r13\n\t"
                     "movabs $0x0e0e0e0e0e0e0e0e, %%r14\n\t"
                     "movabs $0x0f0f0f0f0f0f0f0f, %%r15\n\t"
                     "movabs $0x0202020202020202, %%rdx\n\t"
                     "1: mov $20000, %%ecx\n\t"
                     "2: pause\n\t"
                     "dec %%ecx\n\t"
                     "jnz 2b\n\t"
                     "mov %%rbx, %%rdi\n\t"
                     "xor %%esi, %%esi\n\t"
                     "mov $21, %%eax\n\t"
                     "syscall\n\t"
                     "test %%eax, %%eax\n\t"
                     "jnz 1b\n\t"
                     "mov %%r8, 0(%%rbp)\n\t"
                     "mov %%r9, 8(%%rbp)\n\t"
                     "mov %%r10, 16(%%rbp)\n\t"
                     "mov %%r12, 24(%%rbp)\n\t"
                     "mov %%r13, 32(%%rbp)\n\t"
                     "mov %%r14, 40(%%rbp)\n\t"
                     "mov %%r15, 48(%%rbp)\n\t"
                     "mov %%rdx, 56(%%rbp)\n\t"
                     "mov %%rbx, 64(%%rbp)\n\t"
                     "pop %%rbx\n\t"
                     "pop %%rbp\n\t"
                     :
                     : [seen] "S"(seen), [path] "D"(subject_go)
                     : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
    static const unsigned number[] = {8, 9, 10, 12, 13, 14, 15, 2};
    for (int i = 0; i < 8; i++)
        EXPECT(seen[i] == PATTERN(number[i]), "register %u is %#lx", number[i], (unsigned long)seen[i]);
    EXPECT(seen[8] == (uint64_t)(uintptr_t)subject_go, "rbx is %#lx", (unsigned long)seen[8]);
    subject_pass();
}
