/* Options that few would set: of multicast on streams; sizes of buffers that were set, and then left to the OS kernel. */
#include "../subject.h"
#include <netinet/in.h>
#include <sys/socket.h>

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29
#endif

static struct {
    int family, type, level, name, value, fd;
} options[] = {
    {AF_INET, SOCK_STREAM, IPPROTO_IP, IP_MULTICAST_LOOP, 0, -1},
    {AF_INET, SOCK_STREAM, IPPROTO_IP, IP_MULTICAST_ALL, 0, -1},
    {AF_INET6, SOCK_STREAM, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0, -1},
    {AF_INET6, SOCK_STREAM, IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0, -1},
    {AF_INET, SOCK_DGRAM, SOL_SOCKET, SO_BUF_LOCK, 0, -1},
    {AF_INET, SOCK_DGRAM, SOL_SOCKET, SO_BUF_LOCK, 1, -1},
    {AF_INET, SOCK_STREAM, SOL_SOCKET, SO_BUF_LOCK, 2, -1},
    {AF_UNIX, SOCK_DGRAM, SOL_SOCKET, SO_BUF_LOCK, 0, -1},
};
enum { COUNT = sizeof options / sizeof *options };
static int sizes[COUNT];

static int get(int i, int level, int name)
{
    int value = -1;
    socklen_t length = sizeof value;
    MUST(getsockopt(options[i].fd, level, name, &value, &length));
    return value;
}

static void spoil(void)
{
    for (int i = 0; i < COUNT; i++) {
        int other = options[i].name == SO_BUF_LOCK ? 3 : 1;
        MUST(setsockopt(options[i].fd, options[i].level, options[i].name, &other, sizeof other));
    }
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    for (int i = 0; i < COUNT; i++) {
        options[i].fd = socket(options[i].family, options[i].type, 0);
        if (options[i].fd < 0)
            subject_skip("sockets of family %d", options[i].family);
        int size = 30000;
        if (options[i].name == SO_BUF_LOCK && options[i].value == 0)
            MUST(setsockopt(options[i].fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size));
        if (setsockopt(options[i].fd, options[i].level, options[i].name, &options[i].value, sizeof(int)))
            subject_skip("option %d/%d: %s", options[i].level, options[i].name, strerror(errno));
        sizes[i] = get(i, SOL_SOCKET, SO_RCVBUF);
    }
    subject_wait(spoil);
    for (int i = 0; i < COUNT; i++) {
        int now = get(i, options[i].level, options[i].name);
        EXPECT(now == options[i].value, "option %d/%d of the %dth is %d", options[i].level, options[i].name, i, now);
        EXPECT(get(i, SOL_SOCKET, SO_RCVBUF) == sizes[i], "the size of the %dth is %d", i, get(i, SOL_SOCKET, SO_RCVBUF));
    }
    subject_pass();
}
