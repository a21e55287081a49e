/* A pidfd of a process outside the tree, whoever started this one: it is of the same, as long as that lives. */
#include "../subject.h"
#include <poll.h>
#include <sys/syscall.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)MUST(syscall(SYS_pidfd_open, getppid(), 0));
    subject_wait(NULL);
    struct pollfd asked = {.fd = fd, .events = POLLIN};
    EXPECT(poll(&asked, 1, 0) == 0, "it is of a process that has ended");
    subject_pass();
}
