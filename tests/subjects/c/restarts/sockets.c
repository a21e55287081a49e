/* Threads blocked on sockets: accept, recvmsg, recvmmsg, send to a full one, recv with SO_RCVTIMEO. */
#include "blocked.h"
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

static int door, messages[2], many[2], full[2], limited[2];
static struct sockaddr_un name = {.sun_family = AF_UNIX};
static socklen_t length;
static char space[1 << 20], text[4][100];

static long by_accept(void) { return accept4(door, NULL, NULL, SOCK_CLOEXEC) >= 0; }
static void wake_accept(void)
{
    int fd = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(connect(fd, (struct sockaddr *)&name, length));
}
static long by_recvmsg(void)
{
    struct msghdr message = {.msg_iov = &(struct iovec){text[0], 100}, .msg_iovlen = 1};
    return recvmsg(messages[0], &message, 0);
}
static void wake_recvmsg(void) { MUST(send(messages[1], "four", 4, 0)); }
static long by_recvmmsg(void)
{
    struct iovec parts[2] = {{text[1], 100}, {text[2], 100}};
    struct mmsghdr all[2] = {{.msg_hdr = {.msg_iov = &parts[0], .msg_iovlen = 1}},
                             {.msg_hdr = {.msg_iov = &parts[1], .msg_iovlen = 1}}};
    return recvmmsg(many[0], all, 2, 0, NULL);
}
static void wake_recvmmsg(void)
{
    MUST(send(many[1], "one", 3, 0));
    MUST(send(many[1], "other", 5, 0));
}
static long by_send(void) { return send(full[0], "behind", 6, 0); }
static void wake_send(void)
{
    while (recv(full[1], space, sizeof space, MSG_DONTWAIT) > 0)
        ;
}
static long by_limited(void) { return recv(limited[0], text[3], 100, 0); }
static void wake_limited(void) { MUST(send(limited[1], "in time", 7, 0)); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int used = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "nbcr accept %d", (int)getpid());
    length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)used);
    door = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(bind(door, (struct sockaddr *)&name, length));
    MUST(listen(door, 4));
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, messages));
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, many));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, full));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, limited));
    while (send(full[0], space, 4096, MSG_DONTWAIT) > 0)
        ;
    struct timeval limit = {100, 0};
    MUST(setsockopt(limited[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    struct blocked all[] = {WAITS("accept4", accept, 1),
                            WAITS("recvmsg", recvmsg, 4),
                            WAITS("recvmmsg", recvmmsg, 2),
                            {"send", by_send, wake_send, 6, true, false}, /* messages that were put back take less room */
                            WAITS("recv with a limit", limited, 7)};
    BLOCKED_THROUGH(all);
    EXPECT(!memcmp(text[2], "other", 5) && !memcmp(text[3], "in time", 7), "what was received");
    subject_pass();
}
