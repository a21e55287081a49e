/* What waits where nobody can look: a datagram in the making, urgent data of a Unix socket, packets behind an error; and a watch
 * of a folder. */
#include "../subject.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *what = argc > 2 ? argv[2] : "";
    if (strcmp(what, "datagram") == 0) {
        struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        name.sin_port = htons(9);
        int fd = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
        MUST(connect(fd, (struct sockaddr *)&name, sizeof name));
        MUST(send(fd, "half", 4, MSG_MORE));
    } else if (strcmp(what, "urgent") == 0) {
        int pair[2];
        MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
        if (send(pair[0], "!", 1, MSG_OOB) != 1)
            subject_skip("an OS kernel with urgent data on Unix sockets");
    } else if (strcmp(what, "packets") == 0) {
        int pair[2];
        MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
        MUST(write(pair[0], "unread", 6));
        MUST(write(pair[1], "unread, too", 11));
        MUST(close(pair[1]));
        subject_wait(NULL);
        char text[20];
        EXPECT(read(pair[0], text, 1) == -1 && errno == ECONNRESET, "the error was taken: %d", errno);
        EXPECT(read(pair[0], text, sizeof text) == 11, "the packet is gone");
        subject_pass();
    } else {
        char folder[PATH_MAX];
        snprintf(folder, sizeof folder, "%s", subject_path("folder"));
        MUST(mkdir(folder, 0700));
        int fd = (int)MUST(open(folder, O_RDONLY));
        MUST(fcntl(fd, F_SETSIG, SIGRTMIN));
        if (fcntl(fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT) != 0)
            subject_skip("an OS kernel with dnotify");
    }
    subject_wait(NULL);
    subject_pass();
}
