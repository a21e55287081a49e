/* Socket options: buffers, timeouts, flags. */
#include "../subject.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>

static int inet, local[2];
static const struct {
    int level, name, value;
} options[] = {{SOL_SOCKET, SO_REUSEADDR, 1}, {SOL_SOCKET, SO_KEEPALIVE, 1},    {SOL_SOCKET, SO_SNDBUF, 40000},
               {SOL_SOCKET, SO_RCVBUF, 50000}, {IPPROTO_TCP, TCP_NODELAY, 1},    {IPPROTO_TCP, TCP_KEEPIDLE, 77},
               {SOL_SOCKET, SO_OOBINLINE, 1},  {IPPROTO_IP, IP_TOS, 0x10},       {SOL_SOCKET, SO_REUSEPORT, 1},
               {SOL_SOCKET, SO_BROADCAST, 1},  {IPPROTO_TCP, TCP_KEEPINTVL, 13}, {SOL_SOCKET, SO_RCVLOWAT, 3}};
#define COUNT ((int)(sizeof options / sizeof *options))

static int get(int fd, int level, int name)
{
    int value = -1;
    socklen_t length = sizeof value;
    MUST(getsockopt(fd, level, name, &value, &length));
    return value;
}

static void spoil(void)
{
    int zero = 0;
    setsockopt(inet, IPPROTO_TCP, TCP_NODELAY, &zero, sizeof zero);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int before[COUNT], one = 1;
    inet = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    for (int i = 0; i < COUNT; i++) {
        MUST(setsockopt(inet, options[i].level, options[i].name, &options[i].value, sizeof(int)));
        before[i] = get(inet, options[i].level, options[i].name);
    }
    struct linger linger = {1, 9}, linger_now;
    MUST(setsockopt(inet, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, local));
    struct timeval limit = {3, 500000}, limit_now;
    MUST(setsockopt(local[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    MUST(setsockopt(local[0], SOL_SOCKET, SO_PASSCRED, &one, sizeof one));
    subject_wait(spoil);
    for (int i = 0; i < COUNT; i++)
        EXPECT(get(inet, options[i].level, options[i].name) == before[i], "option %d of level %d is %d instead of %d",
               options[i].name, options[i].level, get(inet, options[i].level, options[i].name), before[i]);
    socklen_t length = sizeof linger_now;
    MUST(getsockopt(inet, SOL_SOCKET, SO_LINGER, &linger_now, &length));
    EXPECT(linger_now.l_onoff == 1 && linger_now.l_linger == 9, "SO_LINGER is lost");
    length = sizeof limit_now;
    MUST(getsockopt(local[0], SOL_SOCKET, SO_RCVTIMEO, &limit_now, &length));
    EXPECT(limit_now.tv_sec == 3 && limit_now.tv_usec / 10000 == 50, "SO_RCVTIMEO is %ld s", (long)limit_now.tv_sec);
    EXPECT(get(local[0], SOL_SOCKET, SO_PASSCRED) == 1, "SO_PASSCRED is lost");
    subject_pass();
}
