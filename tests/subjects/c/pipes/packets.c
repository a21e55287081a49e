/* A pipe in packet mode keeps its boundaries. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int ends[2];
    MUST(pipe2(ends, O_DIRECT));
    static const int sizes[] = {3, 1, 4000, 17};
    static char content[4096], now[8192];
    for (int i = 0; i < 4; i++) {
        subject_fill(content, sizeof content, (uint64_t)i);
        MUST(write(ends[1], content, (size_t)sizes[i]));
    }
    subject_wait(NULL);
    for (int i = 0; i < 4; i++) {
        ssize_t got = MUST(read(ends[0], now, sizeof now));
        EXPECT(got == sizes[i], "packet %d has %zd bytes", i, got);
        EXPECT_FILLED(now, (size_t)got, (uint64_t)i, "a packet");
    }
    EXPECT(fcntl(ends[1], F_GETFL) & O_DIRECT, "packet mode is off");
    subject_pass();
}
