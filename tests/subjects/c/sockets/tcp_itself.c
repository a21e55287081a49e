/* A TCP socket that is connected to itself, with data on the way. */
#include "tcp.h"

static int fd;
static void spoil(void) { MUST(send(fd, "more", 4, 0)); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at;
    fd = bound(AF_INET, SOCK_STREAM, &at);
    if (connect(fd, &at.any, at.length))
        subject_skip("a connection to itself");
    send_filled(fd, 3000, 1);
    subject_wait(spoil);
    expect_same_address(fd, 0, &at, "the socket");
    expect_same_address(fd, 1, &at, "its other end");
    expect_arrives(fd, 3000, 1, "what was on the way");
    send_filled(fd, 2000, 2);
    expect_arrives(fd, 2000, 2, "what is sent now");
    subject_pass();
}
