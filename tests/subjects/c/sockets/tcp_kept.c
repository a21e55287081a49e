/* Connections to outside that go on, with data on both sides, sent, unsent and unread, and in every state of ending.
 * argv[2]: 4, 6 or mapped; argv[3]: the port of a peer (tests/integration/engine/peer.py), which is connected to once
 * and connects back, tells whether it has got what was sent, and keeps silent between the first data and the last. */
#include "tcp.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>

enum { CONNECTIONS = 6, FIRST = 30000, PUT = 200000, ALL = 300000 };
static const bool peer_ends[CONNECTIONS] = {[2] = true, [4] = true}, we_end[CONNECTIONS] = {[3] = true, [4] = true, [5] = true};
static int fds[CONNECTIONS], sent[CONNECTIONS], got[CONNECTIONS];
static bool ended[CONNECTIONS], told[CONNECTIONS];

static unsigned char at(int seed, int position)
{
    return (unsigned char)((position * 7 + position / 251 + seed) & 0xff);
}

static void put(int i, int until)
{
    static unsigned char buffer[1 << 16];
    while (sent[i] < until) {
        int length = until - sent[i] < (int)sizeof buffer ? until - sent[i] : (int)sizeof buffer;
        for (int n = 0; n < length; n++)
            buffer[n] = at(i, sent[i] + n);
        ssize_t done = send(fds[i], buffer, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0 && errno == EAGAIN)
            return;
        EXPECT(done > 0, "connection %d: send: %s", i, strerror(errno));
        sent[i] += (int)done;
    }
}

static void take(int i)
{
    static unsigned char buffer[1 << 16];
    ssize_t length = recv(fds[i], buffer, sizeof buffer, MSG_DONTWAIT);
    if (length < 0 && errno == EAGAIN)
        return;
    EXPECT(length >= 0, "connection %d: recv: %s", i, strerror(errno));
    for (int n = 0; n < length; n++)
        EXPECT(buffer[n] == at(i + 100, got[i] + n), "connection %d: byte %d is another", i, got[i] + n);
    got[i] += (int)length;
    ended[i] = length == 0;
}

static void exchange(int i)
{
    struct pollfd ask = {.fd = fds[i]};
    while (!ended[i] || !told[i]) {
        ask.events = (short)((ended[i] ? 0 : POLLIN) | (sent[i] < ALL && !told[i] ? POLLOUT : 0));
        EXPECT(poll(&ask, 1, 5000) > 0, "connection %d is stuck: %d sent, %d got", i, sent[i], got[i]);
        if (!ended[i])
            take(i);
        if (!told[i])
            put(i, ALL);
        if (!told[i] && sent[i] == ALL) {
            MUST(shutdown(fds[i], SHUT_WR));
            told[i] = true;
        }
    }
    EXPECT(got[i] == (peer_ends[i] ? FIRST : ALL), "connection %d: %d bytes", i, got[i]);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool mapped = argc > 2 && !strcmp(argv[2], "mapped");
    int family = argc > 2 && strcmp(argv[2], "4") ? AF_INET6 : AF_INET;
    struct address peer = loopback(family), door = peer;
    if (mapped) {
        inet_pton(AF_INET6, "::ffff:127.0.0.1", &peer.six.sin6_addr);
        door.six.sin6_addr = (struct in6_addr)IN6ADDR_ANY_INIT;
    }
    peer.four.sin_port = htons((uint16_t)atoi(argc > 3 ? argv[3] : "0")); /* at the same place in both */
    int listener = (int)MUST(socket(family, SOCK_STREAM, 0));
    MUST(bind(listener, &door.any, door.length));
    MUST(listen(listener, 8));
    MUST(getsockname(listener, &door.any, &door.length));
    fds[0] = (int)MUST(socket(family, SOCK_STREAM, 0));
    if (connect(fds[0], &peer.any, peer.length))
        subject_skip("a peer at the port given");
    MUST(send(fds[0], &door.four.sin_port, 2, 0));
    for (int i = 1; i < CONNECTIONS; i++)
        fds[i] = (int)MUST(accept(listener, NULL, NULL));
    int yes = 1;
    MUST(setsockopt(fds[1], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes));
    MUST(setsockopt(fds[1], SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes));
    for (int i = 0; i < CONNECTIONS; i++) {
        for (int waits = 0; waits < FIRST;)
            MUST(ioctl(fds[i], FIONREAD, &waits));
        put(i, i == 5 ? 1000 : PUT);
        if (we_end[i])
            MUST(shutdown(fds[i], SHUT_WR));
        told[i] = we_end[i];
    }
    int only[CONNECTIONS];
    for (int i = 0; i < CONNECTIONS; i++)
        only[i] = only_six(fds[i], family);
    subject_wait(NULL);
    for (int i = 0; i < CONNECTIONS; i++)
        EXPECT(only_six(fds[i], family) == only[i], "IPV6_V6ONLY of connection %d is not %d", i, only[i]);
    int verdict = (int)MUST(socket(family, SOCK_STREAM, 0));
    MUST(connect(verdict, &peer.any, peer.length)); /* which tells the peer to go on */
    for (int i = 0; i < CONNECTIONS; i++)
        exchange(i);
    int one = 0;
    socklen_t size = sizeof one;
    MUST(getsockopt(fds[1], IPPROTO_TCP, TCP_NODELAY, &one, &size));
    EXPECT(one, "TCP_NODELAY is off");
    MUST(getsockopt(fds[1], SOL_SOCKET, SO_KEEPALIVE, &one, &size));
    EXPECT(one, "SO_KEEPALIVE is off");
    MUST(getsockopt(fds[0], SOL_SOCKET, SO_REUSEADDR, &one, &size));
    EXPECT(!one, "SO_REUSEADDR is on");
    char words[200] = "";
    MUST(recv(verdict, words, sizeof words - 1, 0));
    EXPECT(!strcmp(words, "good"), "the peer says: %s", words);
    int more = connected_to(&(struct address){.six = door.six, .length = door.length}); /* the listener listens */
    MUST(accept(listener, NULL, NULL));
    close(more);
    subject_pass();
}
