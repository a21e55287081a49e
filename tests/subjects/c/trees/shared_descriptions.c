/* Descriptors of every kind that a child has inherited: what one does to them the other sees. */
#include "tree.h"
#include <pty.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

static int file, event, timer, pair[2], master, slave, set, memory;

static int work(int told, void *argument)
{
    (void)argument;
    child_wait(told);
    uint64_t count;
    struct epoll_event ready;
    char text[20] = "";
    if (lseek(file, 0, SEEK_CUR) != 7 || lseek(memory, 0, SEEK_CUR) != 9)
        return 1;
    if (read(event, &count, 8) != 8 || count != 5)
        return 2;
    if (recv(pair[1], text, 20, 0) != 4 || read(slave, text, 20) != 3)
        return 3;
    struct itimerspec left;
    if (timerfd_gettime(timer, &left) || left.it_value.tv_sec < 200)
        return 4;
    if (epoll_wait(set, &ready, 1, 0) != 0 || write(event, &(uint64_t){3}, 8) != 8 || epoll_wait(set, &ready, 1, 0) != 1)
        return 5;
    if (!(fcntl(pair[1], F_GETFL) & O_NONBLOCK))
        return 6;
    MUST(lseek(file, 70, SEEK_SET));
    MUST(lseek(memory, 90, SEEK_SET));
    MUST(fcntl(slave, F_SETFL, O_NONBLOCK));
    return 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    file = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    event = (int)MUST(eventfd(0, 0));
    timer = (int)MUST(timerfd_create(CLOCK_MONOTONIC, 0));
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    MUST(openpty(&master, &slave, NULL, NULL, NULL));
    set = (int)MUST(epoll_create1(0));
    memory = (int)MUST(memfd_create("inherited", 0));
    MUST(epoll_ctl(set, EPOLL_CTL_ADD, event, &(struct epoll_event){.events = EPOLLIN}));
    struct child child = child_start(work, NULL);
    subject_wait(NULL);
    MUST(lseek(file, 7, SEEK_SET));
    MUST(lseek(memory, 9, SEEK_SET));
    MUST(eventfd_write(event, 5));
    MUST(send(pair[0], "four", 4, 0));
    MUST(write(master, "ab\n", 3));
    MUST(timerfd_settime(timer, 0, &(struct itimerspec){.it_value.tv_sec = 300}, NULL));
    MUST(fcntl(pair[1], F_SETFL, O_NONBLOCK));
    child_tell(child);
    child_expect_exit(child, 0, "what the child sees");
    EXPECT(lseek(file, 0, SEEK_CUR) == 70 && lseek(memory, 0, SEEK_CUR) == 90, "the offsets are no longer shared");
    EXPECT(fcntl(slave, F_GETFL) & O_NONBLOCK, "the terminal's flags are no longer shared");
    subject_pass();
}
