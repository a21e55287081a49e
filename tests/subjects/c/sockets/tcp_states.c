/* TCP: bound and no more, a failed connection with its error, both stacks on one port, shared ports, a full buffer. */
#include "tcp.h"
#include <poll.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at, nobody, wild = {.six = {.sin6_family = AF_INET6}, .length = sizeof(struct sockaddr_in6)};
    int only_bound = bound(AF_INET, SOCK_STREAM, &at), one = 1;
    MUST(close(bound(AF_INET, SOCK_STREAM, &nobody)));
    int refused = (int)MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    connect(refused, &nobody.any, nobody.length);
    poll(&(struct pollfd){.fd = refused, .events = POLLOUT}, 1, 5000);
    int dual = (int)MUST(socket(AF_INET6, SOCK_STREAM, 0));
    MUST(bind(dual, &wild.any, wild.length));
    MUST(listen(dual, 3));
    MUST(getsockname(dual, &wild.any, &wild.length));
    struct address four = loopback(AF_INET);
    four.four.sin_port = wild.six.sin6_port;
    int client = connected_to(&four), server = (int)MUST(accept(dual, NULL, NULL));
    int shared[2];
    struct address port = loopback(AF_INET);
    for (int i = 0; i < 2; i++) {
        shared[i] = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
        MUST(setsockopt(shared[i], SOL_SOCKET, SO_REUSEPORT, &one, sizeof one));
        MUST(bind(shared[i], &port.any, port.length));
        MUST(getsockname(shared[i], &port.any, &port.length));
        MUST(listen(shared[i], 2));
    }
    send_filled(server, 60000, 5);
    subject_wait(NULL);
    expect_same_address(only_bound, 0, &at, "the bound socket");
    MUST(listen(only_bound, 1));
    close(connected_to(&at));
    int error = 0;
    socklen_t length = sizeof error;
    MUST(getsockopt(refused, SOL_SOCKET, SO_ERROR, &error, &length));
    EXPECT(error == 0 || error == ECONNREFUSED, "the refused one's error is %s", strerror(error));
    EXPECT(send(refused, "x", 1, MSG_NOSIGNAL) == -1, "the refused one is connected");
    expect_arrives(client, 60000, 5, "over the mapped address");
    struct address peer = {.length = sizeof peer.six};
    MUST(getpeername(server, &peer.any, &peer.length));
    EXPECT(IN6_IS_ADDR_V4MAPPED(&peer.six.sin6_addr), "the server's peer is no mapped address");
    client = connected_to(&four);
    MUST(accept(dual, NULL, NULL));
    for (int i = 0; i < 2; i++)
        expect_same_address(shared[i], 0, &port, "a shared port");
    close(connected_to(&port));
    subject_pass();
}
