/* Huge reserved areas (argv[2] GiB, 64 by default) with few pages in them; the image must not be huge. */
#include "../subject.h"
#include <sys/mman.h>

#define PAGES 64

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    size_t size = (argc > 2 ? strtoul(argv[2], NULL, 10) : 64) << 30;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *area = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (area == MAP_FAILED)
        subject_skip("%zu GiB of reserved address space: %s", size >> 30, strerror(errno));
    char *closed = MUST_MAP(mmap(NULL, size, PROT_NONE, flags, -1, 0));
    for (size_t i = 0; i < PAGES; i++)
        subject_fill(area + size / PAGES * i, 4096, i);
    subject_wait(NULL);
    for (size_t i = 0; i < PAGES; i++) {
        EXPECT_FILLED(area + size / PAGES * i, 4096, i, "a page");
        EXPECT(area[size / PAGES * i + 8192] == 0, "an untouched page is not zero");
    }
    MUST(mprotect(closed, 4096, PROT_READ | PROT_WRITE));
    closed[0] = 1;
    subject_pass();
}
