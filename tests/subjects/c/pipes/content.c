/* Pipes with something in them, several of them, from one byte to full. */
#include "../subject.h"
#include <sys/ioctl.h>

#define COUNT 4
static int ends[COUNT][2];
static const int sizes[COUNT] = {1, 4096, 30000, 65536};
static void spoil(void)
{
    char byte;
    for (int i = 0; i < COUNT; i++)
        if (read(ends[i][0], &byte, 1) != 1)
            return;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char content[65536], now[70000];
    for (int i = 0; i < COUNT; i++) {
        MUST(pipe(ends[i]));
        subject_fill(content, sizeof content, (uint64_t)i);
        EXPECT(write(ends[i][1], content, (size_t)sizes[i]) == sizes[i], "the pipe is too small");
    }
    struct stat before, after;
    if (geteuid() == 0)
        MUST(fchown(ends[0][0], 1234, 5678));
    MUST(fchmod(ends[0][0], 0620));
    MUST(fstat(ends[0][1], &before));
    subject_wait(spoil);
    MUST(fstat(ends[0][1], &after));
    EXPECT(after.st_uid == before.st_uid && after.st_gid == before.st_gid, "the pipe is of %d", (int)after.st_uid);
    EXPECT(after.st_mode == before.st_mode, "the mode of the pipe is %o", after.st_mode);
    for (int i = 0; i < COUNT; i++) {
        int waiting = -1;
        MUST(ioctl(ends[i][0], FIONREAD, &waiting));
        EXPECT(waiting == sizes[i], "pipe %d holds %d bytes instead of %d", i, waiting, sizes[i]);
        EXPECT(read(ends[i][0], now, sizeof now) == sizes[i], "pipe %d: reading", i);
        EXPECT_FILLED(now, (size_t)sizes[i], (uint64_t)i, "a pipe's content");
        EXPECT(write(ends[i][1], "more", 4) == 4 && read(ends[i][0], now, 10) == 4, "pipe %d: no use any more", i);
    }
    subject_pass();
}
