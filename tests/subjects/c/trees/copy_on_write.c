/* Private memory from before the fork: the same content, unshared writes, and in memory once while nobody writes. */
#include "tree.h"
#include <sys/mman.h>

#define SIZE (8u << 20)
static char *area;

/* What of the area more than one process has, in bytes. */
static unsigned long in_common(void)
{
    unsigned long start, end, kib, total = 0;
    bool inside = false;
    char line[512];
    FILE *file = fopen("/proc/self/smaps", "r");
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            inside = start < (unsigned long)area + SIZE && end > (unsigned long)area;
        else if (inside && (sscanf(line, "Shared_Clean: %lu", &kib) == 1 || sscanf(line, "Shared_Dirty: %lu", &kib) == 1))
            total += kib << 10;
    }
    fclose(file);
    return total;
}

static int work(int told, void *argument)
{
    (void)argument;
    subject_fill(area + 4096, 4096, 2);
    child_wait(told);
    EXPECT(in_common() >= SIZE - 8 * 4096, "only %lu bytes of %u are shared with the parent", in_common(), SIZE);
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
