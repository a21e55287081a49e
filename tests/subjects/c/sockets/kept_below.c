/* Listeners of TCP and Unix, and a UDP port, that only a child has: forked, and then closed by the parent. */
#include "tcp.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/un.h>
#include <sys/wait.h>

static int named(struct sockaddr_un *at, socklen_t *length)
{
    int fd = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    at->sun_family = AF_UNIX;
    *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                          (size_t)snprintf(at->sun_path + 1, 90, "kept-below-%d", (int)getpid()));
    MUST(bind(fd, (struct sockaddr *)at, *length));
    MUST(listen(fd, 4));
    return fd;
}

static int receiving(struct sockaddr_in *at)
{
    int fd = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    MUST(bind(fd, (struct sockaddr *)at, sizeof *at));
    socklen_t length = sizeof *at;
    MUST(getsockname(fd, (struct sockaddr *)at, &length));
    return fd;
}

static _Noreturn void serve(int tcp, int local, int udp)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    char c;
    bool sent = write(accept(tcp, NULL, NULL), "t", 1) == 1 && write(accept(local, NULL, NULL), "u", 1) == 1;
    _exit(sent && recv(udp, &c, 1, 0) == 1 && c == 'd' ? 0 : 1);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at;
    struct sockaddr_un name = {0};
    struct sockaddr_in port;
    socklen_t length;
    int tcp = listening_at(AF_INET, &at), local = named(&name, &length), udp = receiving(&port);
    pid_t child = (pid_t)MUST(fork());
    if (child == 0)
        serve(tcp, local, udp);
    close(tcp), close(local), close(udp);
    subject_wait(NULL);
    char c = 0;
    EXPECT(read(connected_to(&at), &c, 1) == 1 && c == 't', "the child does not accept TCP connections");
    int client = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(connect(client, (struct sockaddr *)&name, length));
    EXPECT(read(client, &c, 1) == 1 && c == 'u', "the child does not accept Unix connections");
    int sender = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
    MUST(sendto(sender, "d", 1, 0, (struct sockaddr *)&port, sizeof port));
    int status;
    MUST(waitpid(child, &status, 0));
    EXPECT(status == 0, "the child ended with %#x", status);
    subject_pass();
}
