/* A netlink socket that only a child has: others still reach it at its port. */
#include "../subject.h"

#include <linux/netlink.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

static _Noreturn void receive(int fd)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    char c = 0;
    _exit(recv(fd, &c, 1, 0) == 1 && c == 'n' ? 0 : 1);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)MUST(socket(AF_NETLINK, SOCK_RAW, NETLINK_USERSOCK));
    struct sockaddr_nl at = {.nl_family = AF_NETLINK, .nl_pid = 0x4e000000u + (unsigned)getpid()};
    MUST(bind(fd, (struct sockaddr *)&at, sizeof at));
    pid_t child = (pid_t)MUST(fork());
    if (child == 0)
        receive(fd);
    close(fd);
    subject_wait(NULL);
    int sender = (int)MUST(socket(AF_NETLINK, SOCK_RAW, NETLINK_USERSOCK)), status = 0;
    bool sent = sendto(sender, "n", 1, 0, (struct sockaddr *)&at, sizeof at) == 1;
    EXPECT(sent, "nobody is at the child's port: %s", strerror(errno));
    MUST(waitpid(-1, &status, 0));
    EXPECT(status == 0, "the child ended with %#x", status);
    subject_pass();
}
