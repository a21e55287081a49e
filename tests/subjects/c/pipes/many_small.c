/* Pipes of one page and of a mebibyte, a hundred at once, some empty, some full, some with one end closed. */
#include "../subject.h"
#include <poll.h>
#include <signal.h>

#define COUNT 100

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    static int ends[COUNT][2];
    static char content[1 << 20];
    for (int i = 0; i < COUNT; i++) {
        MUST(pipe2(ends[i], i % 3 ? O_CLOEXEC : O_NONBLOCK));
        MUST(fcntl(ends[i][0], F_SETPIPE_SZ, 4096));
        subject_fill(content, 4096, (uint64_t)i);
        if (i % 4)
            MUST(write(ends[i][1], content, i % 4 == 3 ? 4096 : 10 * (size_t)i));
        if (i % 10 == 5)
            MUST(close(ends[i][1]));
        if (i % 10 == 6)
            MUST(close(ends[i][0]));
    }
    int large[2];
    MUST(pipe(large));
    MUST(fcntl(large[1], F_SETPIPE_SZ, 1 << 20));
    subject_fill(content, sizeof content, 777);
    EXPECT(write(large[1], content, sizeof content) == sizeof content, "the large one is too small");
    subject_wait(NULL);
    for (int i = 0; i < COUNT; i++) {
        size_t wanted = i % 4 == 0 ? 0 : i % 4 == 3 ? 4096 : 10 * (size_t)i;
        if (i % 10 == 6) {
            EXPECT(write(ends[i][1], "x", 1) == -1 && errno == EPIPE, "pipe %d has a reader", i);
            continue;
        }
        EXPECT(fcntl(ends[i][0], F_GETPIPE_SZ) == 4096, "pipe %d has %d bytes", i, fcntl(ends[i][0], F_GETPIPE_SZ));
        if (wanted) {
            EXPECT(read(ends[i][0], content, 8192) == (ssize_t)wanted, "pipe %d", i);
            EXPECT_FILLED(content, wanted, (uint64_t)i, "a pipe");
        }
        int now = poll(&(struct pollfd){.fd = ends[i][0], .events = POLLIN}, 1, 0);
        EXPECT(now == (i % 10 == 5), "pipe %d: its end", i);
    }
    for (size_t got = 0; got < sizeof content;)
        got += (size_t)MUST(read(large[0], content + got, sizeof content - got));
    EXPECT_FILLED(content, sizeof content, 777, "the large one");
    subject_pass();
}
