/* Listening TCP sockets on their ports, IPv4 and IPv6, that accept afterwards. */
#include "tcp.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at[3];
    int fds[3] = {listening_at(AF_INET, &at[0]), listening_at(AF_INET6, &at[1]), listening_at(AF_INET, &at[2])};
    MUST(fcntl(fds[2], F_SETFL, O_NONBLOCK));
    subject_wait(NULL);
    EXPECT(accept(fds[2], NULL, NULL) == -1 && errno == EAGAIN, "somebody connected, or it blocks");
    for (int i = 0; i < 3; i++) {
        expect_same_address(fds[i], 0, &at[i], "a listening socket");
        int client = connected_to(&at[i]), server = (int)MUST(accept(fds[i], NULL, NULL));
        send_filled(client, 100, 1);
        expect_arrives(server, 100, 1, "a new connection");
    }
    subject_pass();
}
