/* UDP: bound, connected, with datagrams waiting, IPv4 or IPv6. */
#include "tcp.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int family = argc > 2 && argv[2][0] == '6' ? AF_INET6 : AF_INET;
    struct address server_at, client_at, from = {.length = sizeof from.six};
    int server = bound(family, SOCK_DGRAM, &server_at), client = bound(family, SOCK_DGRAM, &client_at);
    MUST(connect(client, &server_at.any, server_at.length));
    send_filled(client, 100, 1);
    send_filled(client, 0, 0);
    send_filled(client, 3000, 2);
    subject_wait(NULL);
    static char now[4000];
    EXPECT(recvfrom(server, now, sizeof now, MSG_DONTWAIT, &from.any, &from.length) == 100, "the first datagram");
    EXPECT(from.length == client_at.length && !memcmp(&from.any, &client_at.any, from.length), "its sender differs");
    EXPECT_FILLED(now, 100, 1, "the first datagram");
    EXPECT(recv(server, now, sizeof now, MSG_DONTWAIT) == 0, "the empty datagram");
    EXPECT(recv(server, now, sizeof now, MSG_DONTWAIT) == 3000, "the third datagram");
    EXPECT_FILLED(now, 3000, 2, "the third datagram");
    expect_same_address(server, 0, &server_at, "the server");
    expect_same_address(client, 1, &server_at, "the client's peer");
    send_filled(client, 50, 3);
    struct timespec limit = {5, 0};
    MUST(setsockopt(server, SOL_SOCKET, SO_RCVTIMEO_NEW, &limit, sizeof limit));
    EXPECT(recv(server, now, sizeof now, 0) == 50, "no new datagram arrives");
    subject_pass();
}
