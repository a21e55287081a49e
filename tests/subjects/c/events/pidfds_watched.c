/* An epoll that watches pidfds: of a child, of one that has ended, and one whose number is closed by now. */
#include "../subject.h"
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int epoll;

static int watched(pid_t pid, uint32_t events, uint32_t data)
{
    struct epoll_event event = {.events = events, .data.u32 = data};
    int fd = (int)MUST(syscall(SYS_pidfd_open, pid, 0));
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    return fd;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int end[2];
    struct epoll_event told[4];
    epoll = (int)MUST(epoll_create1(0));
    MUST(pipe(end));
    pid_t child = (pid_t)MUST(fork()), dead;
    if (child == 0) {
        char byte;
        close(end[1]);
        while (read(end[0], &byte, 1) == -1 && errno == EINTR)
            ;
        _exit(4);
    }
    if ((dead = (pid_t)MUST(fork())) == 0)
        _exit(9);
    siginfo_t info = {0};
    MUST(waitid(P_PID, (id_t)dead, &info, WEXITED | WNOWAIT));
    int of_dead = watched(dead, EPOLLIN | EPOLLET, 2);
    EXPECT(epoll_wait(epoll, told, 4, 1000) == 1 && told[0].data.u32 == 2, "not told of the dead one");
    watched(child, EPOLLIN, 1);
    int closed = watched(child, EPOLLIN, 3), kept = (int)MUST(dup(closed));
    close(closed);
    subject_wait(NULL);
    EXPECT(epoll_wait(epoll, told, 4, 0) == 0, "told of %u", told[0].data.u32);
    close(end[1]);
    unsigned seen = 0;
    for (int tries = 0; tries < 1000 && seen != (1u << 1 | 1u << 3); tries++)
        for (int n = epoll_wait(epoll, told, 4, 10); n > 0; n--)
            seen |= 1u << told[n - 1].data.u32;
    EXPECT(seen == (1u << 1 | 1u << 3), "told of %#x", seen);
    MUST(waitid(P_PIDFD, (id_t)of_dead, &info, WEXITED));
    EXPECT(info.si_status == 9, "the dead one ended with %d", info.si_status);
    MUST(waitid(P_PIDFD, (id_t)kept, &info, WEXITED));
    EXPECT(info.si_status == 4, "the child ended with %d", info.si_status);
    subject_pass();
}
