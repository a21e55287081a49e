/* Multicast groups that UDP sockets have joined, over IPv4 and IPv6, one with a source filter. */
#include "tcp.h"
#include <net/if.h>

static bool is_member(int fd, int level, const struct sockaddr *group, socklen_t length)
{
    /* joining twice is refused */
    struct group_req wanted = {.gr_interface = if_nametoindex("lo")};
    memcpy(&wanted.gr_group, group, length);
    bool member = setsockopt(fd, level, MCAST_JOIN_GROUP, &wanted, sizeof wanted) == -1 && errno == EADDRINUSE;
    return member;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at;
    int four = bound(AF_INET, SOCK_DGRAM, &at), plain = bound(AF_INET, SOCK_DGRAM, &at), six = (int)MUST(socket(AF_INET6, SOCK_DGRAM, 0));
    int filtered = bound(AF_INET, SOCK_DGRAM, &at);
    struct sockaddr_in group = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr("239.77.1.2")};
    struct sockaddr_in other = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr("239.77.1.3")};
    struct sockaddr_in6 group6 = {.sin6_family = AF_INET6};
    inet_pton(AF_INET6, "ff12::77", &group6.sin6_addr);
    struct group_req wanted = {.gr_interface = if_nametoindex("lo")};
    memcpy(&wanted.gr_group, &group, sizeof group);
    if (setsockopt(four, IPPROTO_IP, MCAST_JOIN_GROUP, &wanted, sizeof wanted))
        subject_skip("multicast on the loopback device");
    memcpy(&wanted.gr_group, &group6, sizeof group6);
    MUST(setsockopt(six, IPPROTO_IPV6, MCAST_JOIN_GROUP, &wanted, sizeof wanted));
    struct ip_mreq_source source = {.imr_multiaddr = other.sin_addr, .imr_interface.s_addr = inet_addr("127.0.0.1"),
                                    .imr_sourceaddr.s_addr = inet_addr("127.0.0.9")};
    MUST(setsockopt(filtered, IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, &source, sizeof source));
    subject_wait(NULL);
    EXPECT(is_member(four, IPPROTO_IP, (struct sockaddr *)&group, sizeof group), "the IPv4 socket has left its group");
    EXPECT(is_member(six, IPPROTO_IPV6, (struct sockaddr *)&group6, sizeof group6), "the IPv6 socket has left its group");
    EXPECT(!is_member(plain, IPPROTO_IP, (struct sockaddr *)&group, sizeof group), "another socket has joined");
    char room[IP_MSFILTER_SIZE(4)];
    struct ip_msfilter *filter = (struct ip_msfilter *)room;
    *filter = (struct ip_msfilter){.imsf_multiaddr = other.sin_addr, .imsf_interface.s_addr = inet_addr("127.0.0.1"), .imsf_numsrc = 4};
    socklen_t length = sizeof room;
    MUST(getsockopt(filtered, IPPROTO_IP, IP_MSFILTER, filter, &length));
    EXPECT(filter->imsf_fmode == MCAST_INCLUDE && filter->imsf_numsrc == 1 &&
               filter->imsf_slist[0].s_addr == inet_addr("127.0.0.9"), "the source filter: mode %u, %u sources",
           filter->imsf_fmode, filter->imsf_numsrc);
    subject_pass();
}
