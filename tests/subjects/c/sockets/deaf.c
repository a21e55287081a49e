/* Sockets that are shut down for receiving: a TCP connection, a Unix listener, a Unix socket that is not connected. */
#include "tcp.h"
#include <poll.h>
#include <sys/un.h>

static int events(int fd)
{
    struct pollfd asked = {fd, POLLIN | POLLRDHUP | POLLHUP, 0};
    MUST(poll(&asked, 1, 0));
    return asked.revents;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at;
    char byte;
    int door = listening_at(AF_INET, &at), near = connected_to(&at), far = (int)MUST(accept(door, NULL, NULL));
    close(door);
    int listener = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0)), alone = (int)MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
    MUST(bind(listener, (struct sockaddr *)&(struct sockaddr_un){.sun_family = AF_UNIX}, sizeof(sa_family_t)));
    MUST(listen(listener, 3));
    int fds[] = {near, listener, alone}, before[3];
    for (int i = 0; i < 3; i++) {
        MUST(shutdown(fds[i], SHUT_RD));
        before[i] = events(fds[i]);
    }
    subject_wait(NULL);
    for (int i = 0; i < 3; i++)
        EXPECT(events(fds[i]) == before[i], "%d: poll says %#x instead of %#x", i, events(fds[i]), before[i]);
    EXPECT(recv(near, &byte, 1, 0) == 0, "it receives");
    EXPECT(send(near, "x", 1, 0) == 1 && recv(far, &byte, 1, 0) == 1, "it does not send");
    EXPECT(accept(listener, NULL, NULL) == -1 && errno == EINVAL, "it accepts");
    subject_pass();
}
