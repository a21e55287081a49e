/* Both ends of a TCP connection that is over: they have the addresses that they had, and no other end. */
#include "tcp.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at, before[4];
    char byte;
    int ends[4];
    for (int i = 0; i < 4; i += 2) {
        int family = i ? AF_INET6 : AF_INET, listening = listening_at(family, &at);
        ends[i] = connected_to(&at), ends[i + 1] = (int)MUST(accept(listening, NULL, NULL));
        if (!i)
            MUST(close(listening)); /* the other one listens on, where its connection has its port */
    }
    for (int i = 0; i < 4; i++) {
        int one = 1;
        MUST(setsockopt(ends[i], SOL_SOCKET, SO_REUSEADDR, &one, sizeof one)); /* what remains of it keeps no port */
        MUST(shutdown(ends[i], SHUT_WR));
        EXPECT(i % 2 == 0 || recv(ends[i], &byte, 1, 0) == 0, "no end");
        EXPECT(i % 2 == 0 || recv(ends[i - 1], &byte, 1, 0) == 0, "no end");
        before[i].length = sizeof before[i].six;
        MUST(getsockname(ends[i], &before[i].any, &before[i].length));
    }
    for (int i = 0; i < 4; i++) {
        struct tcp_info info = {0};
        do {
            socklen_t length = sizeof info;
            MUST(getsockopt(ends[i], IPPROTO_TCP, TCP_INFO, &info, &length));
            subject_tick();
        } while (info.tcpi_state != TCP_CLOSE);
    }
    subject_wait(NULL);
    for (int i = 0; i < 4; i++) {
        struct address now = {.length = sizeof now.six};
        expect_same_address(ends[i], 0, &before[i], i % 2 ? "the accepted one" : "the other one");
        EXPECT(getpeername(ends[i], &now.any, &now.length) == -1 && errno == ENOTCONN, "there is another end");
        EXPECT(recv(ends[i], &byte, 1, MSG_DONTWAIT) == 0, "not at the end: %s", strerror(errno));
        EXPECT(send(ends[i], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "it can be written: %s", strerror(errno));
    }
    subject_pass();
}
