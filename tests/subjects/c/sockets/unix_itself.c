/* A datagram socket with a name that is connected to itself, and what it has said to itself. */
#include "../subject.h"
#include <sys/socket.h>
#include <sys/un.h>

static int fd;

static void spoil(void)
{
    char text[8];
    MUST(recv(fd, text, sizeof text, 0));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    fd = MUST(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    struct sockaddr_un name = {.sun_family = AF_UNIX}, from;
    socklen_t length = sizeof from;
    char text[8] = "";
    snprintf(name.sun_path, sizeof name.sun_path, "%s", subject_path("itself"));
    MUST(bind(fd, (struct sockaddr *)&name, sizeof name));
    MUST(connect(fd, (struct sockaddr *)&name, sizeof name));
    MUST(send(fd, "one", 4, 0));
    subject_wait(spoil);
    ssize_t got = recvfrom(fd, text, sizeof text, MSG_DONTWAIT, (struct sockaddr *)&from, &length);
    EXPECT(got == 4 && !strcmp(text, "one"), "what waited: %zd bytes, %s", got, strerror(errno));
    EXPECT(!strcmp(from.sun_path, name.sun_path), "it came from %s", from.sun_path);
    got = send(fd, "two", 4, MSG_DONTWAIT);
    EXPECT(got == 4, "sending: %s", strerror(errno));
    got = recv(fd, text, sizeof text, MSG_DONTWAIT);
    EXPECT(got == 4 && !strcmp(text, "two"), "it does not hear itself: %zd, %s", got, strerror(errno));
    unlink(name.sun_path);
    subject_pass();
}
