/* TCP sockets before any connection: unbound, bound only, and one whose connection was refused. */
#include "tcp.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at, nobody;
    int unbound = (int)MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)), bound_only = bound(AF_INET, SOCK_STREAM, &at);
    int gone = listening_at(AF_INET, &nobody), refused = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(close(gone));
    EXPECT(connect(refused, &nobody.any, nobody.length) == -1 && errno == ECONNREFUSED, "somebody listens");
    subject_wait(NULL);
    expect_same_address(bound_only, 0, &at, "the bound socket");
    EXPECT(fcntl(unbound, F_GETFL) & O_NONBLOCK, "O_NONBLOCK is lost");
    MUST(listen(bound_only, 3));
    EXPECT(connect(unbound, &at.any, at.length) == 0 || errno == EINPROGRESS, "connect: %s", strerror(errno));
    int server = (int)MUST(accept(bound_only, NULL, NULL));
    send_filled(server, 100, 1);
    expect_arrives(unbound, 100, 1, "a first connection");
    subject_pass();
}
