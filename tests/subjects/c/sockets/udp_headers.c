/* Datagrams that wait: what their headers tell of where they were sent, of hops and service; over IPv4, IPv6 and both. */
#include "tcp.h"

static struct {
    int receiver, sender;
    struct address to;
} ways[3];

static int wild(int family)
{
    struct address any = {.length = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)};
    any.any.sa_family = (sa_family_t)family;
    int fd = (int)MUST(socket(family, SOCK_DGRAM, 0)), off = 0;
    if (family == AF_INET6)
        MUST(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off));
    MUST(bind(fd, &any.any, any.length));
    return fd;
}

static void set(int fd, int level, int name, int value) { MUST(setsockopt(fd, level, name, &value, sizeof value)); }

static void expect_header(int i)
{
    char text[20], space[300];
    struct msghdr message = {.msg_iov = &(struct iovec){text, sizeof text}, .msg_iovlen = 1};
    message.msg_control = space;
    message.msg_controllen = sizeof space;
    EXPECT(recvmsg(ways[i].receiver, &message, MSG_DONTWAIT) == 6, "way %d: nothing waits", i);
    int hops = 0, service = 0;
    char to[INET6_ADDRSTRLEN] = "", wanted[INET6_ADDRSTRLEN];
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        bool four = c->cmsg_level == IPPROTO_IP;
        if (c->cmsg_type == (four ? IP_TTL : IPV6_HOPLIMIT))
            hops = *CMSG_DATA(c);
        else if (c->cmsg_type == (four ? IP_TOS : IPV6_TCLASS))
            service = *CMSG_DATA(c);
        else if (four && c->cmsg_type == IP_PKTINFO)
            inet_ntop(AF_INET, &((struct in_pktinfo *)CMSG_DATA(c))->ipi_addr, to, sizeof to);
        else if (!four && c->cmsg_type == IPV6_PKTINFO && i == 1)
            inet_ntop(AF_INET6, &((struct in6_pktinfo *)CMSG_DATA(c))->ipi6_addr, to, sizeof to);
    }
    if (i == 1)
        inet_ntop(AF_INET6, &ways[i].to.six.sin6_addr, wanted, sizeof wanted);
    else
        inet_ntop(AF_INET, &ways[i].to.four.sin_addr, wanted, sizeof wanted);
    EXPECT(strcmp(to, wanted) == 0, "way %d: it was sent to %s instead of %s", i, to, wanted);
    EXPECT(hops == 7 + i && service == 0x28, "way %d: hops %d, service %#x", i, hops, (unsigned)service);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    for (int i = 0; i < 3; i++) { /* IPv4, IPv6, IPv4 to a socket of IPv6 */
        int family = i == 1 ? AF_INET6 : AF_INET;
        ways[i].receiver = wild(i ? AF_INET6 : AF_INET);
        ways[i].sender = (int)MUST(socket(family, SOCK_DGRAM, 0));
        set(ways[i].receiver, IPPROTO_IP, IP_RECVTTL, 1);
        set(ways[i].receiver, IPPROTO_IP, IP_RECVTOS, 1);
        set(ways[i].receiver, IPPROTO_IP, IP_PKTINFO, 1);
        if (i == 1) {
            set(ways[i].receiver, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
            set(ways[i].receiver, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
            set(ways[i].receiver, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
            set(ways[i].sender, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 7 + i);
            set(ways[i].sender, IPPROTO_IPV6, IPV6_TCLASS, 0x28);
        } else {
            set(ways[i].sender, IPPROTO_IP, IP_TTL, 7 + i);
            set(ways[i].sender, IPPROTO_IP, IP_TOS, 0x28);
        }
        struct address at = {.length = sizeof at.six};
        MUST(getsockname(ways[i].receiver, &at.any, &at.length));
        ways[i].to = loopback(family);
        ways[i].to.four.sin_port = at.four.sin_port; /* at the same place for both families */
        if (i != 1)
            ways[i].to.four.sin_addr.s_addr = htonl(0x7f000005 + (unsigned)i);
        MUST(sendto(ways[i].sender, "header", 6, 0, &ways[i].to.any, ways[i].to.length));
    }
    subject_wait(NULL);
    for (int i = 0; i < 3; i++)
        expect_header(i);
    subject_pass();
}
