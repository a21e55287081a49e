/* UDP sockets that are shut down for sending, for receiving, or both. */
#include "tcp.h"
#include <poll.h>
#include <signal.h>

static int events(int fd)
{
    struct pollfd asked = {fd, POLLIN | POLLRDHUP | POLLHUP, 0};
    MUST(poll(&asked, 1, 0));
    return asked.revents;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at;
    int server = bound(AF_INET, SOCK_DGRAM, &at), ends[3], before[3];
    signal(SIGPIPE, SIG_IGN);
    for (int how = SHUT_RD; how <= SHUT_RDWR; how++) {
        ends[how] = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
        MUST(connect(ends[how], &at.any, at.length));
        MUST(shutdown(ends[how], how));
        before[how] = events(ends[how]);
    }
    subject_wait(NULL);
    char byte;
    for (int how = SHUT_RD; how <= SHUT_RDWR; how++) {
        EXPECT(events(ends[how]) == before[how], "%d: poll says %#x instead of %#x", how, events(ends[how]), before[how]);
        ssize_t sent = send(ends[how], "x", 1, 0);
        EXPECT(how == SHUT_RD ? sent == 1 : sent == -1 && errno == EPIPE, "%d: sending gives %zd", how, sent);
        struct timespec limit = {.tv_nsec = 1000}; /* one that may receive waits for it */
        MUST(setsockopt(ends[how], SOL_SOCKET, SO_RCVTIMEO_NEW, &limit, sizeof limit));
        ssize_t got = recv(ends[how], &byte, 1, 0);
        EXPECT(how == SHUT_WR ? got == -1 && errno == EAGAIN : got == 0, "%d: receiving gives %zd", how, got);
    }
    EXPECT(recv(server, &byte, 1, MSG_DONTWAIT) == 1, "nothing arrived");
    subject_pass();
}
