/* Private memory from before the fork: the same content, unshared writes. */
#include "tree.h"
#include <sys/mman.h>

#define SIZE (8u << 20)
static char *area;

static int work(int told, void *argument)
{
    (void)argument;
    subject_fill(area + 4096, 4096, 2);
    child_wait(told);
    EXPECT_FILLED(area, 4096, 1, "the child's first page");
    EXPECT_FILLED(area + 4096, 4096, 2, "the child's own page");
    EXPECT(subject_differs(area + 8192, SIZE - 8192, 1 + 8192 / 8) < 0, "the child's rest");
    return 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    area = MUST_MAP(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    subject_fill(area, SIZE, 1);
    struct child child = child_start(work, NULL);
    subject_wait(NULL);
    area[0] ^= 1; /* must not show in the child */
    child_tell(child);
    child_expect_exit(child, 0, "the child");
    area[0] ^= 1;
    EXPECT_FILLED(area, SIZE, 1, "the parent's memory");
    subject_pass();
}
