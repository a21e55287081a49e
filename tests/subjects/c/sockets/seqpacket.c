/* Sequenced packets: a pair with packets of several sizes, an empty one, and a named listener with a connection. */
#include "../subject.h"
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int pair[2], listening = (int)MUST(socket(AF_UNIX, SOCK_SEQPACKET, 0)), client = (int)MUST(socket(AF_UNIX, SOCK_SEQPACKET, 0));
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair));
    static const size_t sizes[] = {1, 5000, 3, 70};
    static char content[8192], now[8192];
    for (int i = 0; i < 4; i++) {
        subject_fill(content, sizes[i], (uint64_t)i);
        MUST(send(pair[0], content, sizes[i], 0));
    }
    struct sockaddr_un name = {.sun_family = AF_UNIX}, got_name;
    snprintf(name.sun_path, sizeof name.sun_path, "%s", subject_path("sock"));
    MUST(bind(listening, (struct sockaddr *)&name, sizeof name));
    MUST(listen(listening, 2));
    MUST(connect(client, (struct sockaddr *)&name, sizeof name));
    int server = (int)MUST(accept(listening, NULL, NULL));
    MUST(send(server, "one", 3, 0));
    MUST(send(server, "two", 3, 0));
    subject_wait(NULL);
    for (int i = 0; i < 4; i++) {
        ssize_t got = recv(pair[1], now, sizeof now, 0);
        EXPECT(got == (ssize_t)sizes[i], "packet %d has %zd bytes", i, got);
        EXPECT_FILLED(now, sizes[i], (uint64_t)i, "a packet");
    }
    EXPECT(recv(pair[1], now, sizeof now, 0) == -1 && errno == EAGAIN, "there is another one");
    EXPECT(recv(client, now, sizeof now, 0) == 3 && recv(client, now, 2, MSG_TRUNC) == 3, "the named one's packets");
    socklen_t length = sizeof got_name;
    MUST(getpeername(client, (struct sockaddr *)&got_name, &length));
    EXPECT(strcmp(got_name.sun_path, name.sun_path) == 0, "the peer's name");
    int another = (int)MUST(socket(AF_UNIX, SOCK_SEQPACKET, 0));
    MUST(connect(another, (struct sockaddr *)&name, sizeof name));
    MUST(accept(listening, NULL, NULL));
    MUST(shutdown(pair[0], SHUT_WR));
    EXPECT(recv(pair[1], now, sizeof now, 0) == 0, "no end after a shutdown");
    subject_pass();
}
