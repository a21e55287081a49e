/* Hundreds of descriptors. */
#include "../subject.h"

#define COUNT 600

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static int fds[COUNT];
    int fd = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    MUST(ftruncate(fd, COUNT));
    for (int i = 0; i < COUNT; i++) {
        fds[i] = (int)MUST(open(i % 3 ? subject_path("file") : "/dev/null", O_RDWR));
        if (i % 3)
            MUST(lseek(fds[i], i, SEEK_SET));
    }
    subject_wait(NULL);
    for (int i = 0; i < COUNT; i++)
        EXPECT(i % 3 ? lseek(fds[i], 0, SEEK_CUR) == i : write(fds[i], "x", 1) == 1, "descriptor %d", fds[i]);
    int next = (int)MUST(open("/dev/null", O_RDONLY));
    EXPECT(next == fds[COUNT - 1] + 1, "the next free number is %d", next);
    subject_pass();
}
