/*
 * Connections that wait to be accepted, with what was sent on them, at three listeners of one port (SO_REUSEPORT); with
 * "flight" as further argument: at one listener that is itself on its way through a Unix socket.
 */
#include "tcp.h"

#define DOORS 3
#define CLIENTS 6

static int door_at(struct sockaddr_in *at)
{
    int fd = (int)MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)), on = 1;
    socklen_t size = sizeof *at;
    MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on));
    MUST(bind(fd, (struct sockaddr *)at, size));
    MUST(getsockname(fd, (struct sockaddr *)at, &size));
    MUST(listen(fd, CLIENTS));
    return fd;
}

static void pass_on(int to, int fd)
{
    char control[CMSG_SPACE(sizeof fd)] = "";
    struct iovec text = {.iov_base = "!", .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &text, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    MUST(sendmsg(to, &message, 0));
    MUST(close(fd));
}

static int taken_from(int from)
{
    char control[CMSG_SPACE(sizeof from)], text;
    struct iovec part = {.iov_base = &text, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    EXPECT(recvmsg(from, &message, MSG_DONTWAIT) == 1 && CMSG_FIRSTHDR(&message), "no listener is on its way");
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool flight = argc > 2 && strcmp(argv[2], "flight") == 0;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int doors[DOORS], clients[CLIENTS], count = flight ? 1 : DOORS, way[2];
    for (int i = 0; i < count; i++)
        doors[i] = door_at(&at);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
        MUST(connect(clients[i], (struct sockaddr *)&at, sizeof at));
        MUST(write(clients[i], &i, sizeof i));
    }
    if (flight) {
        MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, way));
        pass_on(way[0], doors[0]);
    }
    subject_wait(NULL);

    if (flight)
        doors[0] = taken_from(way[1]);
    int found = 0;
    for (int i = 0; i < count; i++)
        for (int server; (server = accept(doors[i], NULL, NULL)) >= 0; found++) {
            int who = -1;
            EXPECT(recv(server, &who, sizeof who, MSG_WAITALL) == sizeof who, "what was sent is gone");
            EXPECT(who >= 0 && who < CLIENTS, "it came from %d", who);
            send_filled(server, 10, 9);
            expect_arrives(clients[who], 10, 9, "the way back");
        }
    EXPECT(found == CLIENTS, "%d of %d connections wait", found, CLIENTS);
    subject_pass();
}
