/* IPv6 flow labels of a connected UDP socket, and of a TCP connection by whoever made it. */
#include "tcp.h"

#ifndef IPV6_FLOWINFO_SEND
#define IPV6_FLOWINFO_SEND 33
#endif

static int flowing(struct address at, int type, unsigned label)
{
    int fd = (int)MUST(socket(AF_INET6, type, 0)), one = 1;
    MUST(setsockopt(fd, IPPROTO_IPV6, IPV6_FLOWINFO_SEND, &one, sizeof one));
    at.six.sin6_flowinfo = htonl(label);
    MUST(connect(fd, &at.any, at.length));
    return fd;
}

static void expect_label(int fd, unsigned label, const char *what)
{
    struct address peer = {.length = sizeof peer.six};
    MUST(getpeername(fd, &peer.any, &peer.length));
    EXPECT(ntohl(peer.six.sin6_flowinfo) == label, "%s: label %x", what, ntohl(peer.six.sin6_flowinfo));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address datagrams_at, door_at;
    bound(AF_INET6, SOCK_DGRAM, &datagrams_at);
    int door = bound(AF_INET6, SOCK_STREAM, &door_at);
    MUST(listen(door, 3));
    int datagrams = flowing(datagrams_at, SOCK_DGRAM, 0x12345), plain = flowing(datagrams_at, SOCK_DGRAM, 0);
    int early = flowing(door_at, SOCK_STREAM, 0x23456), server = (int)MUST(accept(door, NULL, NULL));
    int late = flowing(door_at, SOCK_STREAM, 0x34567);
    expect_label(datagrams, 0x12345, "before");
    subject_wait(NULL);
    expect_label(datagrams, 0x12345, "UDP");
    expect_label(plain, 0, "UDP without");
    expect_label(early, 0x23456, "TCP");
    expect_label(late, 0x34567, "TCP that was not accepted");
    MUST(write(early, "x", 1));
    char byte;
    EXPECT(read(server, &byte, 1) == 1, "nothing arrives");
    subject_pass();
}
