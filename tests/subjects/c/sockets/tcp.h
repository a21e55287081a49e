/* Two ends of a TCP connection over the loopback device, for either family. */
#include "../subject.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    };
    socklen_t length;
};

static struct address loopback(int family)
{
    struct address a = {0};
    if (family == AF_INET) {
        a.four = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        a.length = sizeof a.four;
    } else {
        a.six = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
        a.length = sizeof a.six;
    }
    return a;
}

UNUSED static int bound(int family, int type, struct address *where)
{
    *where = loopback(family);
    int fd = socket(family, type, 0);
    if (fd < 0 || bind(fd, &where->any, where->length))
        subject_skip("IPv%d on the loopback device", family == AF_INET ? 4 : 6);
    MUST(getsockname(fd, &where->any, &where->length));
    return fd;
}

UNUSED static int listening_at(int family, struct address *where)
{
    int fd = bound(family, SOCK_STREAM, where);
    MUST(listen(fd, 8));
    return fd;
}

UNUSED static int connected_to(const struct address *where)
{
    int fd = (int)MUST(socket(where->any.sa_family, SOCK_STREAM, 0));
    MUST(connect(fd, &where->any, where->length));
    return fd;
}

/* What arrives until `size` bytes are there; on the loopback device that is at once. */
UNUSED static void expect_arrives(int fd, size_t size, uint64_t seed, const char *what)
{
    static char buffer[1 << 20];
    struct timespec limit = {5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO_NEW, &limit, sizeof limit);
    for (size_t got = 0; got < size;) {
        ssize_t part = recv(fd, buffer + got, size - got, 0);
        EXPECT(part > 0, "%s: %zu of %zu bytes, then %s", what, got, size, part ? strerror(errno) : "the end");
        got += (size_t)part;
    }
    EXPECT_FILLED(buffer, size, seed, what);
}

UNUSED static void send_filled(int fd, size_t size, uint64_t seed)
{
    static char buffer[1 << 20];
    subject_fill(buffer, size, seed);
    EXPECT(send(fd, buffer, size, MSG_DONTWAIT) == (ssize_t)size, "it does not take %zu bytes", size);
}

UNUSED static void expect_same_address(int fd, int peer, const struct address *before, const char *what)
{
    struct address now = {.length = sizeof now.six};
    MUST(peer ? getpeername(fd, &now.any, &now.length) : getsockname(fd, &now.any, &now.length));
    EXPECT(now.length == before->length && !memcmp(&now.any, &before->any, now.length), "%s has another address", what);
}

/* IPV6_V6ONLY, which bind(2) to an address sets by itself; 0 of another family. */
UNUSED static int only_six(int fd, int family)
{
    int value = 0;
    socklen_t length = sizeof value;
    if (family == AF_INET6)
        MUST(getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &value, &length));
    return value;
}
