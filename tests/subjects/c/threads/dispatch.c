/* A thread that takes its own system calls (PR_SET_SYSCALL_USER_DISPATCH, as Wine does), while a selector says so.
 *
 * region: all but those of the C library, without a selector; inside: only those of a range; taken: the thread is just
 * in code whose calls it takes, and can make none for us. */
#include "../subject.h"
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
enum { ALL_BUT = 1, ONLY = 2 };

static const char *variant = "";
static volatile char selector; /* 0: allow, 1: hand over */
static volatile bool set, off, end;
static volatile sig_atomic_t taken;
static void handler(int number) { selector = 0, taken += number == SIGSYS; }

/* A call that is not the C library's; what it returns, or its number where it was taken. */
__asm__(".pushsection .text\n"
        ".balign 4096\n"
        "own_call:\n  mov $110, %eax\n  syscall\n  ret\n"
        ".balign 4096\n"
        "own_end:\n"
        ".popsection\n");
extern long own_call(void);
extern const char own_end[];

static uintptr_t library_start, library_end;
static int find_library(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size, (void)unused;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr, after = start + info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type == PT_LOAD && start <= (uintptr_t)prctl && (uintptr_t)prctl < after)
            library_start = start, library_end = after;
    }
    return 0;
}

static long take(bool on)
{
    if (!on)
        return prctl(PR_SET_SYSCALL_USER_DISPATCH, 0, 0, 0, 0);
    if (strcmp(variant, "region") == 0)
        return prctl(PR_SET_SYSCALL_USER_DISPATCH, ALL_BUT, library_start, library_end - library_start, NULL);
    if (strcmp(variant, "inside") == 0)
        return prctl(PR_SET_SYSCALL_USER_DISPATCH, ONLY, own_call, own_end - (char *)own_call, NULL);
    return prctl(PR_SET_SYSCALL_USER_DISPATCH, ALL_BUT, 0, 0, &selector);
}

static void *run(void *argument)
{
    (void)argument;
    if (take(true))
        subject_skip("system call user dispatch");
    set = true;
    if (strcmp(variant, "taken") == 0) {
        selector = 1;
        while (!end)
            ;
    }
    for (; !end; subject_tick())
        if (off) {
            MUST(take(false));
            off = false;
        }
    if (strcmp(variant, "taken") == 0) {
        getppid();
        EXPECT(taken == 1, "a call is not taken any more");
        taken = 0;
    }
    long parent = getppid(), expected = 110;
    selector = 1;
    long found = own_call();
    EXPECT(found == expected && taken == 1, "it returns %ld, taken: %d", found, (int)taken);
    selector = 0;
    EXPECT(getppid() == parent && taken == 1, "others are taken, too: %d", (int)taken);
    return NULL;
}

static void spoil(void)
{
    for (off = true; off; subject_tick())
        ;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (argc > 2)
        variant = argv[2];
    dl_iterate_phdr(find_library, NULL);
    MUST(sigaction(SIGSYS, &(struct sigaction){.sa_handler = handler}, NULL));
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, run, NULL));
    while (!set)
        subject_tick();
    subject_wait(spoil);
    end = true;
    MUST0(pthread_join(thread, NULL));
    taken = 0;
    EXPECT(own_call() == getppid() && !taken, "the calls of another thread are taken");
    subject_pass();
}
