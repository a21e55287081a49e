/* TCP sockets whose next call tells of an error: refused, reset. */
#include "../subject.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

static void await_error(int fd)
{
    struct pollfd asked = {.fd = fd};
    EXPECT(poll(&asked, 1, 5000) == 1 && asked.revents & POLLERR, "no error");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof name;
    int nobody = (int)MUST(socket(AF_INET, SOCK_STREAM, 0)), refused = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(bind(nobody, (struct sockaddr *)&name, length));
    MUST(getsockname(nobody, (struct sockaddr *)&name, &length));
    MUST(fcntl(refused, F_SETFL, O_NONBLOCK));
    if (connect(refused, (struct sockaddr *)&name, length) == -1 && errno != EINPROGRESS)
        subject_skip("a connection that is refused at once");
    await_error(refused);
    MUST(listen(nobody, 1));
    int caller = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(connect(caller, (struct sockaddr *)&name, length));
    int reset = (int)MUST(accept(nobody, NULL, NULL));
    struct linger none = {1, 0};
    MUST(setsockopt(caller, SOL_SOCKET, SO_LINGER, &none, sizeof none));
    MUST(close(caller));
    await_error(reset);
    subject_wait(NULL);

    int error = 0;
    length = sizeof error;
    MUST(getsockopt(refused, SOL_SOCKET, SO_ERROR, &error, &length));
    EXPECT(error == ECONNREFUSED, "the refused one tells of %d", error);
    char byte;
    EXPECT(read(reset, &byte, 1) == -1 && errno == ECONNRESET, "the reset one tells of %d", errno);
    subject_pass();
}
