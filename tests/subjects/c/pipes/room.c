/* Large pipes, which take more than half of what a user may have in pipes (pipe-user-pages-soft). */
#include "../subject.h"

enum { COUNT = 40, SIZE = 1 << 20 };

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static int ends[COUNT][2];
    for (int i = 0; i < COUNT; i++) {
        MUST(pipe(ends[i]));
        if (fcntl(ends[i][1], F_SETPIPE_SZ, SIZE) != SIZE)
            subject_skip("room for large pipes");
        MUST(write(ends[i][1], &i, sizeof i));
    }
    subject_wait(NULL);
    for (int i = 0; i < COUNT; i++) {
        int size = fcntl(ends[i][0], F_GETPIPE_SZ), found = -1;
        EXPECT(size == SIZE, "pipe %d has %d bytes", i, size);
        EXPECT(read(ends[i][0], &found, sizeof found) == sizeof found && found == i, "in pipe %d is %d", i, found);
    }
    subject_pass();
}
