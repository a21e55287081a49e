/* Threads blocked in each call that waits for descriptors, without a limit and with one that is far away. */
#include "blocked.h"
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

static int ends[2], epoll;
static const struct timespec far = {600, 0};
static sigset_t none;

static long by_ppoll(void) { return ppoll(&(struct pollfd){.fd = ends[0], .events = POLLIN}, 1, &far, &none); }
static long by_pselect(void)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    return pselect(ends[0] + 1, &set, NULL, NULL, &far, &none);
}
static long by_select(void)
{
    fd_set set;
    struct timeval limit = {600, 0};
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    return select(ends[0] + 1, &set, NULL, NULL, &limit);
}
static long by_poll(void) { return poll(&(struct pollfd){.fd = ends[0], .events = POLLIN}, 1, 600000); }
static long by_epoll_wait(void) { return epoll_wait(epoll, &(struct epoll_event){0}, 1, 600000); }
static long by_epoll_pwait(void) { return epoll_pwait(epoll, &(struct epoll_event){0}, 1, -1, &none); }
static long by_epoll_pwait2(void)
{
    return syscall(SYS_epoll_pwait2, epoll, &(struct epoll_event){0}, 1, &far, &none, 8);
}
static void wake_ppoll(void) { MUST(write(ends[1], "x", 1)); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigemptyset(&none);
    MUST(pipe(ends));
    epoll = (int)MUST(epoll_create1(0));
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &(struct epoll_event){.events = EPOLLIN}));
    struct blocked all[] = {WAITS("ppoll", ppoll, 1), /* its input wakes all others */
                            WAITS_ALONE("pselect", pselect, 1),
                            WAITS_ALONE("select", select, 1),
                            WAITS_ALONE("poll", poll, 1),
                            WAITS_ALONE("epoll_wait", epoll_wait, 1),
                            WAITS_ALONE("epoll_pwait", epoll_pwait, 1),
                            WAITS_ALONE("epoll_pwait2", epoll_pwait2, 1)};
    BLOCKED_THROUGH(all);
    subject_pass();
}
