/* In flight, what is about a process of the tree: a pidfd, or a file of its own in /proc. Refused by name. */
#include "../subject.h"
#include <sys/socket.h>
#include <sys/syscall.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool by_path = argc > 2 && strcmp(argv[2], "file") == 0;
    int ends[2], fd = (int)MUST(by_path ? open("/proc/self/maps", O_RDONLY) : syscall(SYS_pidfd_open, getpid(), 0));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    char room[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec byte = {"x", 1};
    struct msghdr message = {.msg_iov = &byte, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    MUST(sendmsg(ends[0], &message, 0));
    close(fd);
    subject_wait(NULL);
    subject_pass();
}
