/* Many further options of sockets of every family, each compared with what it was set to. */
#include "tcp.h"
#include <linux/net_tstamp.h>
#include <linux/sockios.h>

#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))
struct option {
    int level, name, value;
};
static const struct option tcp[] = {{SOL_SOCKET, SO_PRIORITY, 3},       {SOL_SOCKET, SO_RCVLOWAT, 5},
                                    {SOL_SOCKET, SO_TIMESTAMP, 1},      {SOL_SOCKET, SO_OOBINLINE, 1},
                                    {SOL_SOCKET, SO_DONTROUTE, 1},      {SOL_SOCKET, SO_INCOMING_CPU, 0},
                                    {IPPROTO_TCP, TCP_MAXSEG, 900},     {IPPROTO_TCP, TCP_KEEPCNT, 4},
                                    {IPPROTO_TCP, TCP_SYNCNT, 3},       {IPPROTO_TCP, TCP_LINGER2, 9},
                                    {IPPROTO_TCP, TCP_DEFER_ACCEPT, 7}, {IPPROTO_TCP, TCP_WINDOW_CLAMP, 40000},
                                    {IPPROTO_TCP, TCP_USER_TIMEOUT, 12000}, {IPPROTO_TCP, TCP_NOTSENT_LOWAT, 8000},
                                    {IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1}, {IPPROTO_IP, IP_TTL, 33},
                                    {IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO}, {IPPROTO_IP, IP_FREEBIND, 1},
                                    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1}, {IPPROTO_IP, IP_RECVTTL, 1}};
static const struct option udp[] = {{SOL_SOCKET, SO_BROADCAST, 1},      {SOL_SOCKET, SO_RXQ_OVFL, 1},
                                    {SOL_SOCKET, SO_NO_CHECK, 1},       {SOL_SOCKET, SO_TIMESTAMPNS, 1},
                                    {SOL_SOCKET, SO_REUSEADDR, 1},      {IPPROTO_IP, IP_PKTINFO, 1},
                                    {IPPROTO_IP, IP_RECVERR, 1},        {IPPROTO_IP, IP_RECVTOS, 1},
                                    {IPPROTO_IP, IP_MULTICAST_TTL, 5},  {IPPROTO_IP, IP_MULTICAST_LOOP, 0},
                                    {IPPROTO_IP, IP_MULTICAST_ALL, 0},  {IPPROTO_IP, IP_RECVORIGDSTADDR, 1}};
static const struct option six[] = {{IPPROTO_IPV6, IPV6_V6ONLY, 1},     {IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9},
                                    {IPPROTO_IPV6, IPV6_RECVPKTINFO, 1}, {IPPROTO_IPV6, IPV6_TCLASS, 0x20},
                                    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1}, {IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 4},
                                    {IPPROTO_IPV6, IPV6_DONTFRAG, 1},   {IPPROTO_IPV6, IPV6_RECVERR, 1}};
static const struct option local[] = {{SOL_SOCKET, SO_PASSCRED, 1}, {SOL_SOCKET, SO_SNDBUF, 30000},
                                      {SOL_SOCKET, SO_PEEK_OFF, 0}, {SOL_SOCKET, SO_PASSSEC, 1}};

static int get(int fd, const struct option *option)
{
    int value = -1;
    socklen_t length = sizeof value;
    getsockopt(fd, option->level, option->name, &value, &length);
    return value;
}

static void set_all(int fd, const struct option *options, int count, int *before)
{
    for (int i = 0; i < count; i++) {
        setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int)); /* where the host has it */
        before[i] = get(fd, &options[i]);
    }
}

static void expect_all(int fd, const struct option *options, int count, const int *before, const char *what)
{
    for (int i = 0; i < count; i++)
        EXPECT(get(fd, &options[i]) == before[i], "%s: option %d of level %d is %d instead of %d", what, options[i].name,
               options[i].level, get(fd, &options[i]), before[i]);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fds[4] = {(int)MUST(socket(AF_INET, SOCK_STREAM, 0)), (int)MUST(socket(AF_INET, SOCK_DGRAM, 0)),
                  (int)MUST(socket(AF_INET6, SOCK_DGRAM, 0)), (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0))};
    const struct option *lists[] = {tcp, udp, six, local};
    const int counts[] = {COUNT(tcp), COUNT(udp), COUNT(six), COUNT(local)};
    static const char *names[] = {"TCP", "UDP", "UDP over IPv6", "Unix"};
    int before[4][32];
    for (int i = 0; i < 4; i++)
        set_all(fds[i], lists[i], counts[i], before[i]);
    struct timeval limit = {7, 0}, limit_now = {0};
    MUST(setsockopt(fds[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
    setsockopt(fds[0], IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
    MUST(setsockopt(fds[1], SOL_SOCKET, SO_BINDTODEVICE, "lo", 2));
    unsigned char route[8] = {7, 7, 4}, found[1024]; /* record one hop */
    MUST(setsockopt(fds[1], IPPROTO_IP, IP_OPTIONS, route, sizeof route));
    struct sock_txtime moment = {.clockid = CLOCK_MONOTONIC, .flags = SOF_TXTIME_REPORT_ERRORS}, moment_now = {0};
    bool sends_later = setsockopt(fds[1], SOL_SOCKET, SO_TXTIME, &moment, sizeof moment) == 0;
    static const unsigned char padding[8] = {0, 0, 1, 4};
    bool has_padding = setsockopt(fds[2], IPPROTO_IPV6, IPV6_DSTOPTS, padding, sizeof padding) == 0; /* CAP_NET_RAW */
    subject_wait(NULL);
    for (int i = 0; i < 4; i++)
        expect_all(fds[i], lists[i], counts[i], before[i], names[i]);
    socklen_t length = sizeof limit_now;
    MUST(getsockopt(fds[0], SOL_SOCKET, SO_SNDTIMEO, &limit_now, &length));
    EXPECT(limit_now.tv_sec == 7, "SO_SNDTIMEO is %ld s", (long)limit_now.tv_sec);
    char name[20] = "";
    length = sizeof name;
    MUST(getsockopt(fds[0], IPPROTO_TCP, TCP_CONGESTION, name, &length));
    EXPECT(strcmp(name, "reno") == 0, "congestion control is %s", name);
    length = sizeof name;
    MUST(getsockopt(fds[1], SOL_SOCKET, SO_BINDTODEVICE, name, &length));
    EXPECT(strcmp(name, "lo") == 0, "bound to the device '%s'", name);
    length = sizeof found;
    MUST(getsockopt(fds[1], IPPROTO_IP, IP_OPTIONS, found, &length));
    EXPECT(length == sizeof route && found[0] == 7, "%u bytes of IP_OPTIONS", (unsigned)length);
    length = sizeof moment_now;
    EXPECT(!sends_later || getsockopt(fds[1], SOL_SOCKET, SO_TXTIME, &moment_now, &length) == 0, "no SO_TXTIME");
    EXPECT(!sends_later || moment_now.clockid == CLOCK_MONOTONIC, "SO_TXTIME goes by clock %d", moment_now.clockid);
    length = sizeof found;
    EXPECT(!has_padding || getsockopt(fds[2], IPPROTO_IPV6, IPV6_DSTOPTS, found, &length) == 0, "no IPV6_DSTOPTS");
    EXPECT(!has_padding || length == sizeof padding, "%u bytes of IPV6_DSTOPTS", (unsigned)length);
    subject_pass();
}
