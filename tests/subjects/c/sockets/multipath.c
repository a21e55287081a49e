/* Sockets of Multipath TCP that have no address and no connection yet. */
#include "../subject.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t size = sizeof value;
    MUST(getsockopt(fd, level, name, &value, &size));
    return value;
}

static int server, client;
static void spoil(void)
{
    MUST(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &(int){0}, sizeof(int)));
    MUST(listen(server, 1));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    server = socket(AF_INET6, SOCK_STREAM, IPPROTO_MPTCP);
    client = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_MPTCP);
    int other = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
    if (server < 0 || client < 0 || other < 0)
        subject_skip("Multipath TCP");
    MUST(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)));
    MUST(setsockopt(other, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int)));
    subject_wait(spoil);
    EXPECT(option(server, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_MPTCP, "another protocol");
    EXPECT(option(other, SOL_SOCKET, SO_DOMAIN) == AF_INET, "another family");
    EXPECT(option(client, IPPROTO_TCP, TCP_NODELAY) == 1, "TCP_NODELAY is off");
    EXPECT(option(other, SOL_SOCKET, SO_KEEPALIVE) == 1, "SO_KEEPALIVE is off");
    EXPECT(!option(server, SOL_SOCKET, SO_ACCEPTCONN), "it listens");
    EXPECT(fcntl(client, F_GETFL) & O_NONBLOCK, "it blocks");
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t size = sizeof address;
    MUST(bind(server, (struct sockaddr *)&address, sizeof address));
    MUST(listen(server, 1));
    MUST(getsockname(server, (struct sockaddr *)&address, &size));
    EXPECT(connect(client, (struct sockaddr *)&address, sizeof address) == 0 || errno == EINPROGRESS, "no connection");
    int accepted = (int)MUST(accept(server, NULL, NULL));
    EXPECT(write(accepted, "x", 1) == 1 && option(accepted, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_MPTCP, "of another sort");
    subject_pass();
}
