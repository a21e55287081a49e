/* Raw sockets (privileged) and, where the host permits them, ping sockets: addresses, options, filters. */
#include "../subject.h"
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#define ICMP_FILTER 1
#ifndef IPV6_HDRINCL
#define IPV6_HDRINCL 36
#endif

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    if (raw < 0)
        subject_skip("CAP_NET_RAW");
    int raw6 = (int)MUST(socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6)), on = 1;
    int whole = (int)MUST(socket(AF_INET, SOCK_RAW, IPPROTO_RAW)), ping = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, found;
    uint32_t filter = ~1u, filter_now = 0; /* nothing but answers to pings */
    struct icmp6_filter filter6, filter6_now;
    ICMP6_FILTER_SETBLOCKALL(&filter6);
    MUST(bind(raw, (struct sockaddr *)&loopback, sizeof loopback));
    MUST(setsockopt(raw, SOL_RAW, ICMP_FILTER, &filter, sizeof filter));
    MUST(setsockopt(raw6, IPPROTO_ICMPV6, ICMP6_FILTER, &filter6, sizeof filter6));
    if (ping >= 0)
        MUST(bind(ping, (struct sockaddr *)&loopback, sizeof loopback));
    int own6 = (int)MUST(socket(AF_INET6, SOCK_RAW, 200)), at = 4;
    MUST(setsockopt(own6, IPPROTO_IPV6, IPV6_CHECKSUM, &at, sizeof at));
    MUST(setsockopt(own6, IPPROTO_IPV6, IPV6_HDRINCL, &on, sizeof on));
    subject_wait(NULL);
    socklen_t size = sizeof found;
    at = on = 0;
    size = sizeof at;
    MUST(getsockopt(own6, IPPROTO_IPV6, IPV6_CHECKSUM, &at, &size));
    MUST(getsockopt(own6, IPPROTO_IPV6, IPV6_HDRINCL, &on, &size));
    EXPECT(at == 4 && on == 1, "a checksum at %d, headers %d", at, on);
    size = sizeof found;
    MUST(getsockname(raw, (struct sockaddr *)&found, &size));
    EXPECT(found.sin_addr.s_addr == loopback.sin_addr.s_addr, "the address is lost");
    size = sizeof filter_now;
    MUST(getsockopt(raw, SOL_RAW, ICMP_FILTER, &filter_now, &size));
    EXPECT(filter_now == filter, "the filter is %x", filter_now);
    size = sizeof filter6_now;
    MUST(getsockopt(raw6, IPPROTO_ICMPV6, ICMP6_FILTER, &filter6_now, &size));
    EXPECT(memcmp(&filter6_now, &filter6, sizeof filter6) == 0, "the filter of IPv6 is lost");
    size = sizeof on;
    on = 0;
    MUST(getsockopt(whole, IPPROTO_IP, IP_HDRINCL, &on, &size));
    EXPECT(on == 1, "headers are not the program's any more");
    unsigned char echo[16] = {8}, answer[128]; /* the checksum of a ping socket is the OS kernel's work */
    struct pollfd asked = {ping, POLLIN, 0};
    if (ping >= 0) {
        MUST(sendto(ping, echo, sizeof echo, 0, (struct sockaddr *)&loopback, sizeof loopback));
        EXPECT(poll(&asked, 1, 10000) == 1 && recv(ping, answer, sizeof answer, 0) == 16, "no echo");
    }
    subject_pass();
}
