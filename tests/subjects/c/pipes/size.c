/* A pipe's size, and O_NONBLOCK on one end only. */
#include "../subject.h"

static int ends[2];
static void spoil(void) { fcntl(ends[1], F_SETFL, 0); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(pipe2(ends, O_CLOEXEC));
    MUST(fcntl(ends[1], F_SETPIPE_SZ, 262144));
    MUST(fcntl(ends[1], F_SETFL, O_NONBLOCK));
    static char content[262144], now[262144];
    subject_fill(content, sizeof content, 1);
    EXPECT(write(ends[1], content, sizeof content) == sizeof content, "it does not take its size");
    subject_wait(spoil);
    EXPECT(fcntl(ends[0], F_GETPIPE_SZ) == 262144, "size %d", fcntl(ends[0], F_GETPIPE_SZ));
    EXPECT(fcntl(ends[1], F_GETFL) & O_NONBLOCK, "the writer blocks");
    EXPECT(!(fcntl(ends[0], F_GETFL) & O_NONBLOCK), "the reader does not block");
    EXPECT(write(ends[1], "x", 1) == -1 && errno == EAGAIN, "it takes more than its size");
    for (size_t got = 0; got < sizeof now;)
        got += (size_t)MUST(read(ends[0], now + got, sizeof now - got));
    EXPECT_FILLED(now, sizeof now, 1, "the content");
    subject_pass();
}
