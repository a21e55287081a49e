/* One memfd: two descriptors of one description, one of another; mapped shared twice, private once, partly, read-only. */
#include "../subject.h"
#include <sys/mman.h>

#define SIZE (16 * 4096)

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)MUST(memfd_create("many views", 0)), same = (int)MUST(dup(fd));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int other = (int)MUST(open(path, O_RDONLY));
    MUST(ftruncate(fd, SIZE));
    char *one = MUST_MAP(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    char *two = MUST_MAP(mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 8 * 4096));
    const char *view = MUST_MAP(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, other, 0));
    char *mine = MUST_MAP(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    subject_fill(one, SIZE, 1);
    subject_fill(mine + 4096, 4096, 2);
    MUST(munmap(one + 4096, 2 * 4096));
    MUST(lseek(fd, 100, SEEK_SET));
    MUST(lseek(other, 200, SEEK_SET));
    subject_wait(NULL);
    EXPECT(lseek(same, 0, SEEK_CUR) == 100 && lseek(other, 0, SEEK_CUR) == 200, "the offsets");
    MUST(lseek(fd, 101, SEEK_SET));
    EXPECT(lseek(same, 0, SEEK_CUR) == 101, "the two descriptors no longer share an offset");
    EXPECT_FILLED(view, SIZE, 1, "the object");
    EXPECT_FILLED(mine + 4096, 4096, 2, "the private page");
    EXPECT(mine[0] == view[0] && mine[3 * 4096] == view[3 * 4096], "the private view's other pages");
    two[5] = 'z', one[0] = 'y';
    EXPECT(view[8 * 4096 + 5] == 'z' && view[0] == 'y', "the mappings show different objects");
    EXPECT(pwrite(other, "x", 1, 0) == -1 && errno == EBADF, "the read-only one can be written to");
    subject_pass();
}
