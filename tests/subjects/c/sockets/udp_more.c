/* UDP: corked data, broadcast, a shared port, a wildcard address with both stacks, a datagram of the largest size. */
#include "tcp.h"
#include <netinet/udp.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address server_at, shared_at = loopback(AF_INET), wild = {.six = {.sin6_family = AF_INET6}, .length = sizeof(struct sockaddr_in6)};
    int server = bound(AF_INET, SOCK_DGRAM, &server_at), one = 1, off = 0, shared[2];
    int size = 1 << 20;
    MUST(setsockopt(server, SOL_SOCKET, SO_RCVBUF, &size, sizeof size));
    int client = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0)), unbound = (int)MUST(socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0));
    MUST(connect(client, &server_at.any, server_at.length));
    send_filled(client, 60000, 1);
    for (int i = 0; i < 2; i++) {
        shared[i] = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
        MUST(setsockopt(shared[i], SOL_SOCKET, SO_REUSEPORT, &one, sizeof one));
        MUST(bind(shared[i], &shared_at.any, shared_at.length));
        MUST(getsockname(shared[i], &shared_at.any, &shared_at.length));
    }
    int dual = (int)MUST(socket(AF_INET6, SOCK_DGRAM, 0));
    MUST(setsockopt(dual, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off));
    MUST(bind(dual, &wild.any, wild.length));
    MUST(getsockname(dual, &wild.any, &wild.length));
    subject_wait(NULL);
    expect_arrives(server, 60000, 1, "the large datagram");
    for (int i = 0; i < 2; i++)
        expect_same_address(shared[i], 0, &shared_at, "a shared port");
    struct address four = loopback(AF_INET), peer;
    four.four.sin_port = wild.six.sin6_port;
    MUST(sendto(client, "to both", 7, 0, &four.any, four.length));
    expect_same_address(dual, 0, &wild, "the wildcard");
    char text[20];
    struct timespec limit = {5, 0};
    MUST(setsockopt(dual, SOL_SOCKET, SO_RCVTIMEO_NEW, &limit, sizeof limit));
    peer.length = sizeof peer.six;
    EXPECT(recvfrom(dual, text, 20, 0, &peer.any, &peer.length) == 7, "the wildcard gets nothing over IPv4");
    EXPECT(recv(unbound, text, 1, 0) == -1 && errno == EAGAIN, "the unbound one blocks");
    subject_pass();
}
