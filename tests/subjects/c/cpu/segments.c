/* Segment descriptors of its own (modify_ldt(2)), in use by a thread that is in code of 32 bits.
 *
 * full: as many as there can be; empty: a table in which nothing stands; child: a child has the table, too, which tells
 * of its end by another signal; narrow: no table at all, the code of 32 bits is in the segment that everybody has. */
#include "../subject.h"
#include <asm/ldt.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define SELECTOR(number) ((number) << 3 | 7)
enum { DATA = 3, CODE = 5, STACK = 6, USERS_CODE = 0x23, USERS_DATA = 0x2b, AREA = 0x10000, TABLE = 65536 };

/* Below 4 GiB: code, from 0x1000 data, below 0x8000 a stack. In data: at 0x10 when to end, at 0x20 a count. */
static char *area;
static char before[TABLE], after[TABLE];

extern const char narrow[], narrow_end[];
void narrow_call(void *area, long code, long stack, long data); /* the type of `narrow` where it has been copied to */
__asm__(".pushsection .rodata\n"
        "narrow:\n"
        "  push %rbx\n  push %rbp\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
        "  mov %rsp, 0x1080(%rdi)\n"
        "  lea (narrow_back - narrow)(%rdi), %r8\n"
        "  lea (narrow_loop - narrow)(%rdi), %r9\n"
        "  lea 0x7ff8(%rdi), %rsp\n"
        "  mov %r8d, (%rsp)\n"
        "  movl $0x33, 4(%rsp)\n"
        "  mov %ecx, %ds\n"
        "  mov %edx, %ss\n"
        "  push %rsi\n"
        "  push %r9\n"
        "  lretq\n"
        ".code32\n"
        "narrow_loop:\n"
        "  incl 0x20\n"
        "  pause\n"
        "  cmpl $0, 0x10\n"
        "  je narrow_loop\n"
        "  mov %ss, 0x30\n"
        "  mov %cs, 0x34\n"
        "  lret\n"
        ".code64\n"
        "narrow_back:\n"
        "  mov $0x2b, %eax\n"
        "  mov %eax, %ss\n"
        "  mov 0x1080(%rdi), %rsp\n"
        "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbp\n  pop %rbx\n"
        "  ret\n"
        "narrow_end:\n"
        ".popsection\n");

static void set(struct user_desc segment) { MUST(syscall(SYS_modify_ldt, 0x11, &segment, sizeof segment)); }

static void set_flat(int number, int contents)
{
    set((struct user_desc){.entry_number = number, .limit = 0xfffff, .limit_in_pages = 1, .seg_32bit = 1, .contents = contents});
}

static void empty(int number)
{
    set((struct user_desc){.entry_number = number, .read_exec_only = 1, .seg_not_present = 1});
}

static void spoil(void)
{
    empty(100);
    set((struct user_desc){.entry_number = 4, .base_addr = 0x30000, .limit = 1, .useable = 1});
    set((struct user_desc){.entry_number = 8000, .limit = 1, .seg_32bit = 1});
}

static volatile int *data(int offset) { return (int *)(area + 0x1000 + offset); }

static bool with_table;
static void *run(void *argument)
{
    (void)argument;
    __typeof__(narrow_call) *call = (void *)area;
    long segment = with_table ? SELECTOR(DATA) : USERS_DATA;
    call(area, with_table ? SELECTOR(CODE) : USERS_CODE, with_table ? SELECTOR(STACK) : USERS_DATA, segment);
    return NULL;
}

static unsigned read_gs(void)
{
    unsigned found;
    __asm__ volatile("mov %%gs, %0" : "=r"(found));
    return found;
}

static void compare(long size, const char *who)
{
    long found = MUST(syscall(SYS_modify_ldt, 0, after, sizeof after));
    EXPECT(found == size, "%s: a table of %ld bytes instead of %ld", who, found, size);
    for (int i = 0; i < TABLE; i++)
        EXPECT(before[i] == after[i], "%s: the segment %d differs", who, i / 8);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *variant = argc > 2 ? argv[2] : "";
    with_table = strcmp(variant, "narrow") != 0;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (with_table ? MAP_32BIT : MAP_FIXED_NOREPLACE);
    /* without a table data are at 0x10 and 0x20 themselves, seen from a segment that begins at 0: no area can be there */
    area = MUST_MAP(mmap(with_table ? NULL : (void *)0x10000000, AREA, 7, flags, -1, 0));
    memcpy(area, narrow, narrow_end - narrow);
    if (!with_table) /* so the addresses in the code are made those of our area */
        for (char *at = area; at < area + (narrow_end - narrow); at++)
            if ((at[0] == 0x10 || at[0] == 0x20 || at[0] == 0x30 || at[0] == 0x34) && !at[1] && !at[2] && !at[3])
                *(int *)at += (int)(intptr_t)area + 0x1000;
    long size = 0;
    pid_t child = -1;
    int go[2];
    MUST(pipe(go));
    if (with_table) {
        empty(0);
        if (strcmp(variant, "empty") != 0) {
            set((struct user_desc){.entry_number = DATA, .base_addr = (unsigned)(uintptr_t)area + 0x1000, .limit = 0xfff, .seg_32bit = 1});
            set_flat(CODE, MODIFY_LDT_CONTENTS_CODE);
            set_flat(STACK, MODIFY_LDT_CONTENTS_DATA);
            set((struct user_desc){.entry_number = 100, .base_addr = 0xfedcba98, .limit = 0x54321, .contents = 1, .useable = 1});
            set((struct user_desc){.entry_number = 101, .base_addr = 7, .limit = 9, .read_exec_only = 1, .seg_32bit = 1});
            set((struct user_desc){.entry_number = 102, .contents = 3, .seg_not_present = 1, .seg_32bit = 1});
            set((struct user_desc){.entry_number = 103, .limit = 0xfffff, .contents = 2, .read_exec_only = 1});
            set((struct user_desc){.entry_number = 200, .limit = 1});
            empty(200);
            __asm__ volatile("mov %0, %%gs" : : "r"(SELECTOR(DATA)));
        }
        for (int i = 300; strcmp(variant, "full") == 0 && i < 8192; i++)
            set((struct user_desc){.entry_number = i, .base_addr = (unsigned)i << 12, .limit = i, .seg_32bit = i & 1});
        size = MUST(syscall(SYS_modify_ldt, 0, before, sizeof before));
        if (strcmp(variant, "child") == 0 && (child = (pid_t)MUST(syscall(SYS_clone, SIGUSR1, 0, 0, 0, 0))) == 0) {
            char byte;
            close(go[1]);
            while (read(go[0], &byte, 1) < 0 && errno == EINTR)
                ;
            compare(size, "the child");
            _exit(33);
        }
    }
    pthread_t thread;
    bool runs = strcmp(variant, "empty") != 0;
    if (runs) {
        MUST0(pthread_create(&thread, NULL, run, NULL));
        while (!*data(0x20))
            subject_tick();
    }
    signal(SIGUSR1, SIG_IGN);
    subject_wait(*variant && strcmp(variant, "child") != 0 ? NULL : spoil);
    if (runs) {
        int count = *data(0x20);
        while (*data(0x20) == count)
            subject_tick();
        *data(0x10) = 1;
        MUST0(pthread_join(thread, NULL));
        int stack = with_table ? SELECTOR(STACK) : USERS_DATA, code = with_table ? SELECTOR(CODE) : USERS_CODE;
        EXPECT((short)*data(0x30) == stack && (short)*data(0x34) == code, "other segments: %#x, %#x", *data(0x30), *data(0x34));
    }
    if (with_table)
        compare(size, "the process");
    if (with_table && runs) {
        int found;
        EXPECT(read_gs() == SELECTOR(DATA), "gs is %#x", read_gs());
        __asm__ volatile("mov %%gs:0x10, %0" : "=r"(found));
        EXPECT(found == 1, "through gs there is %d", found);
    }
    if (child > 0) {
        int status;
        close(go[1]);
        EXPECT(waitpid(child, &status, __WALL) == child && status == 33 << 8, "the child: status %#x", status);
    }
    subject_pass();
}
