/* A TCP connection to somebody outside (port argv[2]): after a fresh restore it is reset, told by poll and by recv. */
#include "tcp.h"
#include <poll.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at = loopback(AF_INET);
    at.four.sin_port = htons((uint16_t)atoi(argc > 2 ? argv[2] : "0"));
    int fd = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    if (connect(fd, &at.any, at.length))
        subject_skip("somebody who listens at the port given");
    subject_wait(NULL);
    struct pollfd ask = {.fd = fd, .events = POLLIN};
    EXPECT(poll(&ask, 1, 5000) == 1, "poll tells nothing");
    char byte;
    errno = 0;
    ssize_t got = recv(fd, &byte, 1, 0);
    EXPECT(got <= 0, "data comes from a connection of a former life");
    EXPECT(got == 0 || errno == ECONNRESET || errno == EPIPE || errno == ENOTCONN, "recv: %s", strerror(errno));
    int fresh = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(connect(fresh, &at.any, at.length));
    subject_pass();
}
