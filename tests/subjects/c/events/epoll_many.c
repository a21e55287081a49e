/* One epoll over everything that can be waited for, and many of each; exclusive ones; a set four deep. */
#include "../subject.h"
#include <pty.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#ifndef EPOLLEXCLUSIVE
#define EPOLLEXCLUSIVE (1u << 28)
#endif
#define MANY 200

static int set;
static void add(int fd, unsigned events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    MUST(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
}

static uint64_t next(void)
{
    struct epoll_event event;
    return epoll_wait(set, &event, 1, 5000) == 1 ? event.data.u64 : 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigset_t usr;
    sigemptyset(&usr);
    sigaddset(&usr, SIGUSR1);
    MUST(sigprocmask(SIG_BLOCK, &usr, NULL));
    set = (int)MUST(epoll_create1(0));
    int many[MANY], pipe_ends[2], pair[2], master, slave, deep[4];
    for (int i = 0; i < MANY; i++) {
        many[i] = (int)MUST(eventfd(0, EFD_NONBLOCK));
        add(many[i], EPOLLIN | (i % 2 ? EPOLLEXCLUSIVE : EPOLLET), 1000 + (uint64_t)i);
    }
    MUST(pipe(pipe_ends));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    MUST(openpty(&master, &slave, NULL, NULL, NULL));
    int timer = (int)MUST(timerfd_create(CLOCK_MONOTONIC, 0)), signals = (int)MUST(signalfd(-1, &usr, 0));
    int watch = (int)MUST(inotify_init1(0)), process = (int)MUST(syscall(SYS_pidfd_open, getpid(), 0));
    add(pipe_ends[0], EPOLLIN, 1);
    add(pair[0], EPOLLIN | EPOLLRDHUP, 2);
    add(slave, EPOLLIN, 3);
    add(timer, EPOLLIN, 4);
    add(signals, EPOLLIN, 5);
    add(watch, EPOLLIN, 6);
    add(process, EPOLLIN, 7);
    for (int i = 0; i < 4; i++) {
        deep[i] = (int)MUST(epoll_create1(0));
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = 50};
        if (i)
            MUST(epoll_ctl(deep[i], EPOLL_CTL_ADD, deep[i - 1], &event));
    }
    int leaf = (int)MUST(eventfd(0, 0));
    MUST(epoll_ctl(deep[0], EPOLL_CTL_ADD, leaf, &(struct epoll_event){.events = EPOLLIN}));
    subject_wait(NULL);
    struct epoll_event event;
    EXPECT(epoll_wait(set, &event, 1, 0) == 0, "member %lu tells without reason", (unsigned long)event.data.u64);
    for (int i = 0; i < MANY; i += 37) {
        uint64_t count;
        MUST(eventfd_write(many[i], 1));
        EXPECT(next() == 1000 + (uint64_t)i, "member %d does not tell", i);
        MUST(read(many[i], &count, 8));
    }
    char text[64];
    MUST(write(pipe_ends[1], "x", 1));
    EXPECT(next() == 1 && read(pipe_ends[0], text, 1) == 1, "the pipe");
    MUST(write(pair[1], "x", 1));
    EXPECT(next() == 2 && read(pair[0], text, 1) == 1, "the socket");
    MUST(write(master, "x\n", 2));
    EXPECT(next() == 3 && read(slave, text, 10) == 2, "the terminal");
    MUST(timerfd_settime(timer, 0, &(struct itimerspec){.it_value.tv_nsec = 1}, NULL));
    EXPECT(next() == 4 && read(timer, text, 8) == 8, "the timer");
    MUST(raise(SIGUSR1));
    struct signalfd_siginfo info;
    EXPECT(next() == 5 && read(signals, &info, sizeof info) == sizeof info, "the signals");
    EXPECT(epoll_wait(set, &event, 1, 0) == 0, "%lu tells in the end", (unsigned long)event.data.u64);
    MUST(eventfd_write(leaf, 1));
    EXPECT(epoll_wait(deep[3], &event, 1, 0) == 1 && event.data.u64 == 50, "the innermost of four does not tell");
    subject_pass();
}
