/* Edge-triggered, one-shot (used up and not) and nested epoll. */
#include "../subject.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int add(int set, int fd, unsigned events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    return (int)MUST(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int outer = (int)MUST(epoll_create1(0)), inner = (int)MUST(epoll_create1(0)), modes = (int)MUST(epoll_create1(0));
    int edge = (int)MUST(eventfd(1, 0)), used = (int)MUST(eventfd(1, 0)), armed = (int)MUST(eventfd(0, 0));
    int leaf = (int)MUST(eventfd(0, 0));
    add(modes, edge, EPOLLIN | EPOLLET, 1);
    add(modes, used, EPOLLIN | EPOLLONESHOT, 2);
    add(modes, armed, EPOLLIN | EPOLLONESHOT, 3);
    add(inner, leaf, EPOLLIN, 4);
    add(outer, inner, EPOLLIN, 5);
    struct epoll_event events[8];
    EXPECT(epoll_wait(modes, events, 8, 0) == 2, "setting up");
    subject_wait(NULL);
    uint64_t one = 1;
    int count = (int)MUST(epoll_wait(modes, events, 8, 0));
    for (int i = 0; i < count; i++) /* an edge may be told again after a restore, a used-up one-shot may not */
        EXPECT(events[i].data.u64 == 1, "member %lu tells without reason", (unsigned long)events[i].data.u64);
    MUST(write(edge, &one, 8));
    MUST(write(armed, &one, 8));
    EXPECT(epoll_wait(modes, events, 8, 0) == 2, "the edge or the armed one-shot does not tell");
    EXPECT(epoll_wait(modes, events, 8, 0) == 0, "one of them tells twice");
    struct epoll_event again = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 22};
    MUST(epoll_ctl(modes, EPOLL_CTL_MOD, used, &again));
    EXPECT(epoll_wait(modes, events, 8, 0) == 1 && events[0].data.u64 == 22, "the used-up one cannot be armed again");
    EXPECT(epoll_wait(outer, events, 8, 0) == 0, "the outer set tells without reason");
    MUST(write(leaf, &one, 8));
    EXPECT(epoll_wait(outer, events, 8, 0) == 1 && events[0].data.u64 == 5, "the outer set does not tell");
    EXPECT(epoll_wait(inner, events, 8, 0) == 1 && events[0].data.u64 == 4, "the inner set does not tell");
    subject_pass();
}
