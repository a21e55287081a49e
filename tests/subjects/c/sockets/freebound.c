/* UDP and TCP bound to an address that no host has (IP_FREEBIND), the option taken back in one of them. */
#include "../subject.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

static int bound(int type, int stays)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fd = (int)MUST(socket(AF_INET, type, 0)), on = 1;
    inet_pton(AF_INET, "192.0.2.77", &address.sin_addr);
    MUST(setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof on));
    MUST(bind(fd, (struct sockaddr *)&address, sizeof address));
    MUST(setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &stays, sizeof stays));
    return fd;
}

static struct sockaddr_in name_of(int fd)
{
    struct sockaddr_in address = {0};
    socklen_t length = sizeof address;
    MUST(getsockname(fd, (struct sockaddr *)&address, &length));
    return address;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fds[] = {bound(SOCK_DGRAM, 0), bound(SOCK_DGRAM, 1), bound(SOCK_STREAM, 0)};
    struct sockaddr_in before[3];
    MUST(listen(fds[2], 3));
    for (int i = 0; i < 3; i++)
        before[i] = name_of(fds[i]);
    subject_wait(NULL);
    for (int i = 0; i < 3; i++) {
        struct sockaddr_in now = name_of(fds[i]);
        EXPECT(!memcmp(&now, &before[i], sizeof now), "socket %d: %s:%d", i, inet_ntoa(now.sin_addr), ntohs(now.sin_port));
        int set = -1;
        socklen_t length = sizeof set;
        MUST(getsockopt(fds[i], IPPROTO_IP, IP_FREEBIND, &set, &length));
        EXPECT(set == (i == 1), "socket %d: IP_FREEBIND is %d", i, set);
    }
    subject_pass();
}
