/* Regular files: each descriptor's own offset and access mode, and content. */
#include "../subject.h"

static int fds[3];
static void spoil(void)
{
    for (int i = 0; i < 3; i++)
        lseek(fds[i], 0, SEEK_SET);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const int modes[3] = {O_RDONLY, O_WRONLY, O_RDWR};
    char content[10000], now[10000];
    subject_fill(content, sizeof content, 1);
    int fd = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0640));
    MUST(write(fd, content, sizeof content));
    for (int i = 0; i < 3; i++) {
        fds[i] = (int)MUST(open(subject_path("file"), modes[i]));
        MUST(lseek(fds[i], 1111 * (i + 1), SEEK_SET));
    }
    subject_wait(spoil);
    for (int i = 0; i < 3; i++) {
        EXPECT(lseek(fds[i], 0, SEEK_CUR) == 1111 * (i + 1), "descriptor %d: offset %ld", i,
               (long)lseek(fds[i], 0, SEEK_CUR));
        EXPECT((fcntl(fds[i], F_GETFL) & O_ACCMODE) == modes[i], "descriptor %d: access mode", i);
    }
    EXPECT(lseek(fd, 0, SEEK_CUR) == sizeof content, "the first descriptor's offset");
    EXPECT(read(fds[0], now, 100) == 100 && memcmp(now, content + 1111, 100) == 0, "reading goes on elsewhere");
    EXPECT(write(fds[1], "new", 3) == 3, "cannot write on");
    EXPECT(pread(fd, now, 3, 2222) == 3 && memcmp(now, "new", 3) == 0, "writing goes on elsewhere");
    EXPECT(write(fds[0], "x", 1) == -1 && errno == EBADF, "a read-only descriptor can be written to");
    subject_pass();
}
