/* A pidfd of a child: told of its end, usable for waiting. */
#include "tree.h"
#include <poll.h>
#include <sys/syscall.h>

static int work(int told, void *argument)
{
    (void)argument;
    child_wait(told);
    return 12;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct child child = child_start(work, NULL);
    int fd = (int)MUST(syscall(SYS_pidfd_open, child.pid, 0));
    subject_wait(NULL);
    struct pollfd ask = {.fd = fd, .events = POLLIN};
    EXPECT(poll(&ask, 1, 0) == 0, "it tells of an end that was not");
    child_tell(child);
    EXPECT(poll(&ask, 1, 10000) == 1, "it does not tell of the end");
    siginfo_t info = {0};
    MUST(waitid(P_PIDFD, (id_t)fd, &info, WEXITED));
    EXPECT(info.si_status == 12 && info.si_pid == child.pid, "status %d", info.si_status);
    subject_pass();
}
