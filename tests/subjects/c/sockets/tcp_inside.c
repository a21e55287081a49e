/*
 * TCP with both ends inside: bytes waiting in both directions, addresses, options; goes on in both directions. With "6"
 * over IPv6, with "any" the listener was bound to any address.
 */
#include "tcp.h"

static int run(int family, bool any)
{
    struct address server_at, client_at = {.length = sizeof client_at.six};
    int listening = listening_at(family, &server_at), one = 1;
    if (any) {
        struct address everywhere = server_at;
        everywhere.six.sin6_addr = in6addr_any;
        MUST(close(listening));
        listening = (int)MUST(socket(family, SOCK_STREAM, 0));
        MUST(bind(listening, &everywhere.any, everywhere.length));
        MUST(listen(listening, 8));
    }
    int client = connected_to(&server_at), server = (int)MUST(accept(listening, NULL, NULL));
    int client_only = only_six(client, family), server_only = only_six(server, family);
    MUST(close(listening));
    MUST(getsockname(client, &client_at.any, &client_at.length));
    MUST(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    send_filled(client, 30000, 1);
    send_filled(server, 20000, 2);
    subject_wait(NULL);
    EXPECT(only_six(client, family) == client_only, "the client's IPV6_V6ONLY is not %d", client_only);
    EXPECT(only_six(server, family) == server_only, "the server's IPV6_V6ONLY is not %d", server_only);
    expect_same_address(client, 0, &client_at, "the client");
    expect_same_address(client, 1, &server_at, "the client's peer");
    expect_same_address(server, 1, &client_at, "the server's peer");
    expect_arrives(server, 30000, 1, "from the client");
    expect_arrives(client, 20000, 2, "from the server");
    send_filled(client, 1000, 3);
    expect_arrives(server, 1000, 3, "a new message");
    send_filled(server, 1000, 4);
    expect_arrives(client, 1000, 4, "a new answer");
    int value = 0;
    socklen_t length = sizeof value;
    MUST(getsockopt(client, IPPROTO_TCP, TCP_NODELAY, &value, &length));
    EXPECT(value == 1, "TCP_NODELAY is lost");
    MUST(close(client));
    char byte;
    EXPECT(recv(server, &byte, 1, 0) == 0, "no end after the client closed");
    return 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    run(argc > 2 && argv[2][0] == '6' ? AF_INET6 : AF_INET, argc > 3);
    subject_pass();
}
