/* Transparent huge pages where the host has them: contents, and the prctl that turns them off for a process. */
#include "../subject.h"
#include <sys/mman.h>
#include <sys/prctl.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    size_t size = 8u << 20;
    char *area = MUST_MAP(mmap(NULL, size + (2 << 20), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    area = (char *)(((uintptr_t)area + (2 << 20) - 1) & ~((uintptr_t)(2 << 20) - 1));
    madvise(area, size, MADV_HUGEPAGE);
    subject_fill(area, size, 5);
    MUST(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    subject_wait(NULL);
    EXPECT_FILLED(area, size, 5, "the content");
    EXPECT(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1, "PR_SET_THP_DISABLE is lost");
    subject_pass();
}
