/* Both sides of a pseudo-terminal in flight, with what waits in it; and a listener in flight at which somebody waits. */
#include "tcp.h"
#include <sys/un.h>

static void give(int channel, int fd)
{
    char control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec data = {"x", 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    MUST(sendmsg(channel, &message, 0));
    MUST(close(fd));
}

static int take(int channel)
{
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    MUST(recvmsg(channel, &message, MSG_DONTWAIT));
    EXPECT(CMSG_FIRSTHDR(&message), "no descriptor arrives");
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int channel[2];
    char line[8] = "";
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, channel));
    int master = (int)MUST(posix_openpt(O_RDWR | O_NOCTTY));
    MUST(unlockpt(master));
    int slave = (int)MUST(open(ptsname(master), O_RDWR | O_NOCTTY));
    MUST(write(master, "typed\n", 6));
    give(channel[0], master);
    give(channel[0], slave);
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t length = sizeof name;
    int door = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0)), client = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(bind(door, (struct sockaddr *)&name, sizeof(sa_family_t)));
    MUST(getsockname(door, (struct sockaddr *)&name, &length));
    MUST(listen(door, 3));
    MUST(connect(client, (struct sockaddr *)&name, length));
    give(channel[0], door);
    subject_wait(NULL);
    master = take(channel[1]), slave = take(channel[1]), door = take(channel[1]);
    EXPECT(read(slave, line, sizeof line) == 6 && memcmp(line, "typed\n", 6) == 0, "typed was '%.6s'", line);
    MUST(fcntl(door, F_SETFL, O_NONBLOCK));
    int server = (int)MUST(accept(door, NULL, NULL));
    EXPECT(write(client, "y", 1) == 1 && read(server, line, 1) == 1, "the connection");
    subject_pass();
}
