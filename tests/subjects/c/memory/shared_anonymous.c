/* Shared anonymous memory, mapped twice: a write through one mapping shows in the other. */
#include "../subject.h"
#include <sys/mman.h>

#define SIZE (2u << 20)
static char *area;
static void spoil(void) { memset(area, 1, SIZE); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    area = MUST_MAP(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    subject_fill(area, SIZE, 3);
    char *second = MUST_MAP(mremap(area, 0, SIZE, MREMAP_MAYMOVE)); /* old size 0: a second mapping of the same */
    subject_wait(spoil);
    EXPECT_FILLED(area, SIZE, 3, "the first mapping");
    EXPECT_FILLED(second, SIZE, 3, "the second mapping");
    second[12345] = 'x';
    EXPECT(area[12345] == 'x', "the mappings no longer show the same memory");
    subject_pass();
}
