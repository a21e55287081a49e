/*
 * Descriptors that were sent on a connection which nobody has accepted yet, closed since: the reading end of a pipe and
 * one of a socketpair, whose other ends the sender has.
 */
#include "../subject.h"
#include <sys/socket.h>
#include <sys/un.h>

#define COUNT 2

static void give(int to, const int *fds)
{
    char control[CMSG_SPACE(COUNT * sizeof *fds)] = "";
    struct iovec text = {.iov_base = "take them", .iov_len = 9};
    struct msghdr message = {
        .msg_iov = &text, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(COUNT * sizeof *fds);
    memcpy(CMSG_DATA(rights), fds, COUNT * sizeof *fds);
    MUST(sendmsg(to, &message, 0));
}

static void take(int from, int *fds)
{
    char control[CMSG_SPACE(COUNT * sizeof *fds)], text[20];
    struct iovec part = {.iov_base = text, .iov_len = sizeof text};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    EXPECT(recvmsg(from, &message, MSG_DONTWAIT) == 9, "the message is not there");
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    EXPECT(rights && rights->cmsg_len == CMSG_LEN(COUNT * sizeof *fds), "the descriptors are not with it");
    memcpy(fds, CMSG_DATA(rights), COUNT * sizeof *fds);
}

static void expect_text(int fd, const char *wanted, const char *what)
{
    char text[20] = "";
    MUST(fcntl(fd, F_SETFL, O_NONBLOCK));
    ssize_t length = read(fd, text, sizeof text - 1);
    EXPECT(length >= 0, "%s: %s", what, strerror(errno));
    EXPECT(strcmp(text, wanted) == 0, "%s: '%s'", what, text);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listening = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0)), client = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    socklen_t length = sizeof address;
    MUST(bind(listening, (struct sockaddr *)&address, sizeof address.sun_family)); /* an abstract name, as it comes */
    MUST(getsockname(listening, (struct sockaddr *)&address, &length));
    MUST(listen(listening, 5));
    MUST(connect(client, (struct sockaddr *)&address, length));
    int channel[2], pair[2], given[COUNT];
    MUST(pipe(channel));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    MUST(write(channel[1], "in the pipe", 11));
    MUST(write(pair[0], "to the far end", 14));
    MUST(write(pair[1], "to the near end", 15));
    give(client, (int[]){channel[0], pair[1]});
    MUST(close(channel[0]));
    MUST(close(pair[1]));
    subject_wait(NULL);
    MUST(fcntl(listening, F_SETFL, O_NONBLOCK));
    take((int)MUST(accept(listening, NULL, NULL)), given);
    expect_text(given[0], "in the pipe", "the pipe");
    MUST(write(channel[1], "more", 4));
    expect_text(given[0], "more", "what is written to the pipe now");
    expect_text(given[1], "to the far end", "the socket that was given");
    expect_text(pair[0], "to the near end", "the one that was kept");
    MUST(write(pair[0], "new", 3));
    expect_text(given[1], "new", "what is sent now");
    subject_pass();
}
