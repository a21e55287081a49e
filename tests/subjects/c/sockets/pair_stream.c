/* A stream socketpair with bytes waiting in both directions. */
#include "../subject.h"
#include <sys/socket.h>

static int ends[2];
static void spoil(void)
{
    char byte;
    recv(ends[0], &byte, 1, 0);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char content[40000], now[50000];
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
    for (int i = 0; i < 2; i++) {
        subject_fill(content, sizeof content, (uint64_t)i);
        EXPECT(send(ends[1 - i], content, sizeof content, 0) == sizeof content, "it does not take that much");
    }
    subject_wait(spoil);
    for (int i = 0; i < 2; i++) {
        for (size_t got = 0; got < sizeof content;)
            got += (size_t)MUST(recv(ends[i], now + got, sizeof now - got, MSG_DONTWAIT));
        EXPECT_FILLED(now, sizeof content, (uint64_t)i, "what waits in the socket");
        EXPECT(recv(ends[i], now, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN, "more is waiting");
        EXPECT(fcntl(ends[i], F_GETFD) == FD_CLOEXEC, "close-on-exec is lost");
    }
    EXPECT(send(ends[0], "ping", 4, 0) == 4 && recv(ends[1], now, 10, 0) == 4, "no longer connected");
    subject_pass();
}
