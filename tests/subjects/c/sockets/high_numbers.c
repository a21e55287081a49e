/* More descriptors than select(2) can name, all watched by an epoll, and a connection that waits to be accepted. */
#include "../subject.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { COUNT = 1200 };

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct rlimit limit;
    MUST(getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = limit.rlim_max;
    MUST(setrlimit(RLIMIT_NOFILE, &limit));
    int epoll = (int)MUST(epoll_create1(0)), events[COUNT];
    for (int i = 0; i < COUNT; i++) {
        events[i] = eventfd(0, EFD_NONBLOCK);
        if (events[i] < 0)
            subject_skip("%d descriptors a process", COUNT);
        struct epoll_event wanted = {.events = EPOLLIN | EPOLLET, .data.u32 = (uint32_t)i};
        MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, events[i], &wanted));
    }
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t length = (socklen_t)(sizeof name.sun_family + 1);
    length += (socklen_t)snprintf(name.sun_path + 1, 60, "nbcr-subject-high-%d", (int)getpid());
    int listening = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0)), client = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(bind(listening, (struct sockaddr *)&name, length));
    MUST(listen(listening, 5));
    MUST(connect(client, (struct sockaddr *)&name, length));
    subject_wait(NULL);
    MUST(eventfd_write(events[COUNT - 1], 1));
    struct epoll_event told[2];
    EXPECT(epoll_wait(epoll, told, 2, 1000) == 1 && told[0].data.u32 == COUNT - 1, "the epoll tells of another one");
    int server = (int)MUST(accept(listening, NULL, NULL));
    char byte;
    EXPECT(write(client, "x", 1) == 1 && read(server, &byte, 1) == 1 && byte == 'x', "the connection");
    subject_pass();
}
