/* Private memory, random contents, some of it handed back to the OS kernel (reads as zero). */
#include "../subject.h"
#include <sys/mman.h>

#define SIZE (12u << 20)
static char *area;
static void spoil(void) { memset(area, 0xee, SIZE); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    area = MUST_MAP(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    subject_fill(area, SIZE / 2, 1);
    memset(area + SIZE / 2, 0, 65536);
    subject_fill(area + SIZE - 65536, 65536, 2);
    MUST(madvise(area + 65536, 65536, MADV_DONTNEED));
    subject_wait(spoil);
    EXPECT_FILLED(area, 65536, 1, "the beginning");
    for (int i = 65536; i < 131072; i++)
        EXPECT(area[i] == 0, "what was given back holds %d", area[i]);
    EXPECT(subject_differs(area + 131072, SIZE / 2 - 131072, 1 + 131072 / 8) < 0, "the middle differs");
    for (unsigned i = SIZE / 2; i < SIZE - 65536; i += 61)
        EXPECT(area[i] == 0, "a zero page holds %d", area[i]);
    EXPECT_FILLED(area + SIZE - 65536, 65536, 2, "the end");
    memset(area, 1, SIZE);
    MUST(madvise(area, SIZE, MADV_DONTNEED));
    for (unsigned i = 0; i < SIZE; i += 4096)
        EXPECT(area[i] == 0, "after MADV_DONTNEED the byte at %u is %d", i, area[i]);
    subject_pass();
}
