/* Edge-triggered items of an epoll: what they have told is not told again, what comes now is. */
#include "../subject.h"
#include <sys/epoll.h>
#include <sys/socket.h>

static int epoll;

static void watch(int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}

static int told(struct epoll_event *first)
{
    struct epoll_event found[8];
    int count = (int)MUST(epoll_wait(epoll, found, 8, 0));
    *first = found[0];
    return count;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int full[2], empty[2], pair[2];
    struct epoll_event first;
    epoll = (int)MUST(epoll_create1(0));
    MUST(pipe(full));
    MUST(pipe(empty));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    watch(full[0], EPOLLIN | EPOLLET);
    watch(empty[0], EPOLLIN | EPOLLET);
    watch(pair[0], EPOLLIN | EPOLLOUT | EPOLLET);
    MUST(write(full[1], "x", 1));
    EXPECT(told(&first) == 2, "before");
    subject_wait(NULL);
    EXPECT(told(&first) == 0, "descriptor %d tells %#x again", first.data.fd, first.events);
    MUST(write(empty[1], "y", 1));
    EXPECT(told(&first) == 1 && first.data.fd == empty[0], "a pipe does not tell");
    MUST(write(full[1], "z", 1));
    EXPECT(told(&first) == 1 && first.data.fd == full[0], "the full one tells no more");
    MUST(write(pair[1], "z", 1));
    EXPECT(told(&first) == 1 && first.data.fd == pair[0], "a socket does not tell");
    EXPECT(first.events == (EPOLLIN | EPOLLOUT), "a socket tells %#x", first.events);
    subject_pass();
}
