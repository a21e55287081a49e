/* Datagram and seqpacket socketpairs keep the boundaries of what waits in them, an empty datagram too. */
#include "../subject.h"
#include <sys/socket.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const int types[] = {SOCK_DGRAM, SOCK_SEQPACKET}, sizes[] = {5, 0, 8000, 1};
    static char content[8000], now[9000];
    int ends[2][2];
    for (int t = 0; t < 2; t++) {
        MUST(socketpair(AF_UNIX, types[t] | SOCK_NONBLOCK, 0, ends[t]));
        for (int i = 0; i < 4; i++) {
            if (t == 1 && sizes[i] == 0)
                continue; /* on seqpacket it would look like the end */
            subject_fill(content, sizeof content, (uint64_t)(10 * t + i));
            MUST(send(ends[t][0], content, (size_t)sizes[i], 0));
        }
    }
    subject_wait(NULL);
    for (int t = 0; t < 2; t++) {
        for (int i = 0; i < 4; i++) {
            if (t == 1 && sizes[i] == 0)
                continue;
            ssize_t got = MUST(recv(ends[t][1], now, sizeof now, 0));
            EXPECT(got == sizes[i], "type %d: message %d has %zd bytes", t, i, got);
            EXPECT_FILLED(now, (size_t)got, (uint64_t)(10 * t + i), "a message");
        }
        int type = 0;
        socklen_t length = sizeof type;
        MUST(getsockopt(ends[t][0], SOL_SOCKET, SO_TYPE, &type, &length));
        EXPECT(type == types[t], "type %d", type);
        EXPECT(send(ends[t][1], "back", 4, 0) == 4 && recv(ends[t][0], now, 10, 0) == 4, "no longer connected");
    }
    subject_pass();
}
