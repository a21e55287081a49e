/* epoll: every member with its data word and events; also a member known by a number that was closed and reused. */
#include "../subject.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static int set, ready, quiet, pair[2];
static void spoil(void) { epoll_ctl(set, EPOLL_CTL_DEL, ready, NULL); }

static void add(int fd, unsigned events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    MUST(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    set = (int)MUST(epoll_create1(EPOLL_CLOEXEC));
    ready = (int)MUST(eventfd(1, 0)), quiet = (int)MUST(eventfd(0, 0));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    add(ready, EPOLLIN, 0xdeadbeef12345678);
    add(quiet, EPOLLIN, 7);
    add(pair[0], EPOLLOUT | EPOLLIN | EPOLLRDHUP, UINT64_MAX);
    subject_wait(spoil);
    struct epoll_event events[8];
    int count = (int)MUST(epoll_wait(set, events, 8, 0));
    EXPECT(count == 2, "%d members are ready", count);
    for (int i = 0; i < 2; i++)
        EXPECT((events[i].data.u64 == 0xdeadbeef12345678 && events[i].events == EPOLLIN) ||
                   (events[i].data.u64 == UINT64_MAX && events[i].events == EPOLLOUT),
               "events %#x with data %#lx", events[i].events, (unsigned long)events[i].data.u64);
    uint64_t one = 1;
    MUST(write(quiet, &one, 8));
    MUST(close(pair[1]));
    EXPECT(epoll_wait(set, events, 8, 0) == 3, "a member does not tell");
    EXPECT(epoll_ctl(set, EPOLL_CTL_ADD, quiet, events) == -1 && errno == EEXIST, "a member can be added again");
    MUST(epoll_ctl(set, EPOLL_CTL_DEL, quiet, NULL));
    EXPECT(fcntl(set, F_GETFD) == FD_CLOEXEC, "close-on-exec is lost");
    subject_pass();
}
