/* An epoll that watches descriptions whose numbers are closed or mean something else by now. */
#include "../subject.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int set = (int)MUST(epoll_create1(0)), first = (int)MUST(eventfd(0, 0)), second = (int)MUST(eventfd(0, 0));
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 1};
    MUST(epoll_ctl(set, EPOLL_CTL_ADD, first, &event));
    int kept = (int)MUST(dup(first));
    MUST(close(first)); /* the item lives as long as the description */
    event.data.u64 = 2;
    MUST(epoll_ctl(set, EPOLL_CTL_ADD, second, &event));
    int other = (int)MUST(dup(second));
    int reused = (int)MUST(eventfd(7, 0));
    MUST(dup2(reused, second)); /* the number means another description now */
    subject_wait(NULL);
    EXPECT(epoll_wait(set, &event, 1, 0) == 0, "%lu tells without reason", (unsigned long)event.data.u64);
    MUST(eventfd_write(kept, 1));
    EXPECT(epoll_wait(set, &event, 1, 0) == 1 && event.data.u64 == 1, "the one whose number was closed");
    eventfd_t count;
    MUST(eventfd_read(kept, &count));
    MUST(eventfd_write(other, 1));
    EXPECT(epoll_wait(set, &event, 1, 0) == 1 && event.data.u64 == 2, "the one whose number was reused");
    EXPECT(eventfd_read(second, &count) == 0 && count == 7, "the new one at that number counts %lu", (unsigned long)count);
    MUST(epoll_ctl(set, EPOLL_CTL_ADD, second, &event));
    subject_pass();
}
