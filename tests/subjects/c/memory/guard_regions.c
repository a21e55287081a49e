/* Guard regions (MADV_GUARD_INSTALL): touching one is a fault, its neighbours keep their content; in a file, too. */
#include "../subject.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#define PAGE 4096

static sigjmp_buf back;
static char *area, *program;

static void fault(int number)
{
    (void)number;
    siglongjmp(back, 1);
}

static bool faults(volatile char *at)
{
    if (sigsetjmp(back, 1))
        return true;
    (void)*at;
    return false;
}

static void spoil(void) { madvise(area, 8 * PAGE, MADV_GUARD_REMOVE); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction act = {.sa_handler = fault};
    MUST(sigaction(SIGSEGV, &act, NULL));
    area = MUST_MAP(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    subject_fill(area, 8 * PAGE, 1);
    if (madvise(area + 2 * PAGE, 3 * PAGE, MADV_GUARD_INSTALL))
        subject_skip("MADV_GUARD_INSTALL (OS kernel 6.13)");
    EXPECT(faults(area + 2 * PAGE), "setting up");
    int file = MUST(open(argv[0], O_RDONLY)); /* a fork does not copy the page tables of such a mapping */
    program = MUST_MAP(mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, file, 0));
    MUST(madvise(program + PAGE, PAGE, MADV_GUARD_INSTALL));
    subject_wait(spoil);
    EXPECT_FILLED(area, 2 * PAGE, 1, "before the guard");
    EXPECT_FILLED(area + 5 * PAGE, 3 * PAGE, 1 + 5 * PAGE / 8, "behind the guard");
    for (int i = 2; i < 5; i++)
        EXPECT(faults(area + i * PAGE), "guard page %d can be touched", i);
    EXPECT(!faults(program) && faults(program + PAGE), "the guard in a file");
    subject_pass();
}
