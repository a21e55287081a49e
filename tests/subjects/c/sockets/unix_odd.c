/* Unix sockets in rarer states: a renamed file, a sender that is gone, a reset that waits, empty packets, unconnected. */
#include "../subject.h"
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un named(const char *suffix)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(name.sun_path, sizeof name.sun_path, "%s", subject_path(suffix));
    return name;
}

static int bound(int type, const char *suffix)
{
    struct sockaddr_un name = named(suffix);
    int fd = (int)MUST(socket(AF_UNIX, type, 0));
    MUST(bind(fd, (struct sockaddr *)&name, sizeof name));
    return fd;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int door = bound(SOCK_STREAM, "old"), reset[2], behind[2], empty[2], packets[2];
    MUST(listen(door, 3));
    MUST(rename(subject_path("old"), subject_path("new")));
    int heard = bound(SOCK_DGRAM, "heard"), speaker = bound(SOCK_DGRAM, "speaker");
    struct sockaddr_un to = named("heard"), from = {0}, new = named("new");
    MUST(sendto(speaker, "words", 5, 0, (struct sockaddr *)&to, sizeof to));
    MUST(close(speaker));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, reset));
    MUST(write(reset[0], "unread", 6));
    MUST(close(reset[1]));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, behind));
    MUST(write(behind[0], "unread", 6));
    MUST(write(behind[1], "last words", 10));
    MUST(close(behind[1]));
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, empty));
    MUST(write(empty[0], "unread", 6));
    MUST(close(empty[1]));
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets));
    MUST(send(packets[0], "one", 3, 0));
    MUST(send(packets[0], "", 0, 0));
    MUST(send(packets[0], "three", 5, 0));
    int alone = (int)MUST(socket(AF_UNIX, SOCK_SEQPACKET, 0));
    subject_wait(NULL);

    int caller = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(connect(caller, (struct sockaddr *)&new, sizeof new));
    MUST(accept(door, NULL, NULL));
    EXPECT(access(subject_path("old"), F_OK) != 0, "the old name is there again");
    char text[20];
    socklen_t length = sizeof from;
    EXPECT(recvfrom(heard, text, sizeof text, 0, (struct sockaddr *)&from, &length) == 5, "the datagram is gone");
    EXPECT(strcmp(from.sun_path, subject_path("speaker")) == 0, "it came from '%s'", from.sun_path);
    EXPECT(read(reset[0], text, 1) == -1 && errno == ECONNRESET, "nothing tells of the reset: %d", errno);
    EXPECT(read(reset[0], text, 1) == 0, "the end is not the end");
    EXPECT(read(behind[0], text, sizeof text) == 10, "what was sent before the reset is gone");
    EXPECT(read(behind[0], text, 1) == -1 && errno == ECONNRESET, "no reset behind the last words: %d", errno);
    EXPECT(read(empty[0], text, 1) == -1 && errno == ECONNRESET, "nothing tells of the packets' reset: %d", errno);
    EXPECT(recv(packets[1], text, sizeof text, 0) == 3, "the first packet is gone");
    EXPECT(recv(packets[1], text, sizeof text, 0) == 0, "the empty packet is gone");
    EXPECT(recv(packets[1], text, sizeof text, 0) == 5, "the third packet is gone");
    EXPECT(recv(alone, text, 1, 0) == -1 && errno == ENOTCONN, "it is connected");
    subject_pass();
}
