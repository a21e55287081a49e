/* O_DIRECT, O_NOATIME, O_DSYNC and O_ASYNC-free status flags on one file; direct reading works afterwards. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char area[3 * 4096];
    char *aligned = (char *)(((uintptr_t)area + 4095) & ~(uintptr_t)4095);
    int fd = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    subject_fill(aligned, 4096, 3);
    MUST(write(fd, aligned, 4096));
    MUST(fsync(fd));
    int direct = open(subject_path("file"), O_RDWR | O_DIRECT | O_NOATIME | O_DSYNC);
    if (direct < 0)
        subject_skip("a file system with O_DIRECT");
    int before = (int)MUST(fcntl(direct, F_GETFL));
    subject_wait(NULL);
    EXPECT(fcntl(direct, F_GETFL) == before, "the flags are %#o instead of %#o", fcntl(direct, F_GETFL), before);
    memset(area, 0, sizeof area);
    EXPECT(read(direct, aligned, 4096) == 4096, "direct reading: %s", strerror(errno));
    EXPECT_FILLED(aligned, 4096, 3, "the content");
    EXPECT(read(direct, aligned + 1, 100) <= 0, "reading is not direct");
    subject_pass();
}
