/*
 * A connection whose receiver has a small buffer, and has said so from the beginning: what the sender has to say goes
 * through it in small pieces, and quickly.
 */
#include "tcp.h"
#include <poll.h>

#define BYTES (4 << 20)
#define ENOUGH_S 20 /* a hundredth of a second will do; by the sender's timer alone it takes a minute */

static char out[1 << 16], in[1 << 16];

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address where;
    int listener = bound(AF_INET6, SOCK_STREAM, &where), small = 8192, segment = 0;
    MUST(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small));
    MUST(listen(listener, 1));
    int near = connected_to(&where), far = (int)MUST(accept(listener, NULL, NULL));
    MUST(send(near, "first", 5, 0));
    subject_wait(NULL);
    EXPECT(recv(far, in, sizeof in, 0) == 5 && !memcmp(in, "first", 5), "what had arrived");
    socklen_t room = sizeof segment;
    MUST(getsockopt(near, IPPROTO_TCP, TCP_MAXSEG, &segment, &room));
    EXPECT(segment <= 8192, "%d bytes are sent at once", segment);
    struct timespec begun, now;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (size_t sent = 0, got = 0; got < BYTES;) {
        struct pollfd ends[] = {{.fd = near, .events = sent < BYTES ? POLLOUT : 0}, {.fd = far, .events = POLLIN}};
        MUST(poll(ends, 2, 1000));
        clock_gettime(CLOCK_MONOTONIC, &now);
        EXPECT(now.tv_sec - begun.tv_sec < ENOUGH_S, "only %zu of %d bytes have arrived", got, BYTES);
        ssize_t count = sent < BYTES ? send(near, out, sizeof out, MSG_DONTWAIT) : 0;
        sent += count > 0 ? (size_t)count : 0;
        count = recv(far, in, sizeof in, MSG_DONTWAIT);
        got += count > 0 ? (size_t)count : 0;
    }
    subject_pass();
}
