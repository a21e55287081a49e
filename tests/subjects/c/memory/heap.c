/* The program break: content below it, the same end, and it grows and shrinks on. */
#include "../subject.h"
#include <malloc.h>

#define COUNT 3000
static char *blocks[COUNT];
static size_t size_of(int i) { return 16 + subject_mix((uint64_t)i) % 3000; }
static void spoil(void) { memset(blocks[5], 0, size_of(5)); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    mallopt(M_MMAP_THRESHOLD, 1 << 26);
    char *start = sbrk(0);
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = malloc(size_of(i));
        subject_fill(blocks[i], size_of(i), (uint64_t)i);
    }
    for (int i = 1; i < COUNT; i += 4)
        free(blocks[i]), blocks[i] = NULL;
    blocks[5] = malloc(size_of(5));
    subject_fill(blocks[5], size_of(5), 5);
    char *end = sbrk(0);
    EXPECT(end > start, "the heap does not grow");
    subject_wait(spoil);
    EXPECT(sbrk(0) == end, "the break is at %p instead of %p", sbrk(0), (void *)end);
    for (int i = 0; i < COUNT; i++)
        if (blocks[i])
            EXPECT_FILLED(blocks[i], size_of(i), (uint64_t)i, "a block");
    EXPECT(sbrk(1 << 20) == end, "it does not grow from its end");
    memset(end, 1, 1 << 20);
    EXPECT(sbrk(-(1 << 20)) == end + (1 << 20), "it does not shrink");
    for (int i = 0; i < COUNT; i++)
        free(blocks[i]);
    EXPECT(malloc(1 << 22) != NULL, "malloc of 4 MiB");
    subject_pass();
}
