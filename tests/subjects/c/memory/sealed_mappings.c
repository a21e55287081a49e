/* mseal: mappings that may not be changed any more, with their content. */
#include "../subject.h"
#include <sys/mman.h>
#include <sys/syscall.h>

#ifndef SYS_mseal
#define SYS_mseal 462
#endif
#define PAGE 4096

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char *area = MUST_MAP(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    subject_fill(area, 4 * PAGE, 1);
    MUST(mprotect(area, 2 * PAGE, PROT_READ));
    if (syscall(SYS_mseal, area, 3 * PAGE, 0))
        subject_skip("mseal (OS kernel 6.10)");
    subject_wait(NULL);
    EXPECT_FILLED(area, 4 * PAGE, 1, "the content");
    EXPECT(mprotect(area, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EPERM, "the first page is no longer sealed");
    EXPECT(munmap(area + 2 * PAGE, PAGE) == -1 && errno == EPERM, "the third page is no longer sealed");
    MUST(munmap(area + 3 * PAGE, PAGE));
    subject_pass();
}
