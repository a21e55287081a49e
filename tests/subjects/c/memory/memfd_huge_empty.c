/* A memfd of huge pages that nobody has written to: it needs none, here or when it comes back. */
#include "../subject.h"
#include <sys/mman.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = memfd_create("huge", MFD_HUGETLB);
    if (fd < 0 || ftruncate(fd, 64 << 20))
        subject_skip("a file system of huge pages: %s", strerror(errno));
    subject_wait(NULL);
    struct stat st;
    MUST(fstat(fd, &st));
    EXPECT(st.st_size == 64 << 20 && st.st_blksize > 4096, "size %ld, pages of %ld", (long)st.st_size, (long)st.st_blksize);
    EXPECT(st.st_blocks == 0, "%ld blocks are in use", (long)st.st_blocks);
    subject_pass();
}
