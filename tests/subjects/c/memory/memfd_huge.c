/* A memfd of huge pages that nobody maps, with content. */
#include "../subject.h"
#include <sys/mman.h>

#define SIZE (4 << 20)

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = memfd_create("huge", MFD_HUGETLB);
    if (fd < 0 || ftruncate(fd, SIZE))
        subject_skip("huge pages");
    char *area = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (area == MAP_FAILED)
        subject_skip("free huge pages");
    subject_fill(area, 70000, 1);
    subject_fill(area + SIZE - 8000, 8000, 2);
    MUST(munmap(area, SIZE));
    subject_wait(NULL);
    area = MUST_MAP(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    EXPECT_FILLED(area, 70000, 1, "the beginning");
    EXPECT_FILLED(area + SIZE - 8000, 8000, 2, "the end");
    struct stat st;
    MUST(fstat(fd, &st));
    EXPECT(st.st_blksize == 2 << 20 && st.st_size == SIZE, "pages of %ld bytes, size %ld", (long)st.st_blksize, (long)st.st_size);
    subject_pass();
}
