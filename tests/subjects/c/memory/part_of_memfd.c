/* A memfd of which a mapping shows a part and nobody has a descriptor: what no mapping shows is there all the same. */
#include "../subject.h"
#include <sys/mman.h>

#define PAGES(n) ((size_t)(n)*4096)

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)MUST(memfd_create("part", MFD_CLOEXEC));
    MUST(ftruncate(fd, PAGES(100)));
    char *shown = mmap(NULL, PAGES(10), PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)PAGES(20));
    EXPECT(shown != MAP_FAILED, "no mapping");
    subject_fill(shown, PAGES(10), 1);
    MUST(pwrite(fd, "behind", 6, (off_t)PAGES(90)));
    close(fd);
    subject_wait(NULL);
    EXPECT_FILLED(shown, PAGES(10), 1, "what was shown");
    char *more = mremap(shown, PAGES(10), PAGES(80), MREMAP_MAYMOVE);
    EXPECT(more != MAP_FAILED, "the mapping does not grow");
    EXPECT(memcmp(more + PAGES(70), "behind", 6) == 0, "what was behind it is gone");
    subject_pass();
}
