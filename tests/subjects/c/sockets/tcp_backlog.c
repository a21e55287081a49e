/* Connections that wait to be accepted, both ends inside; nothing was sent on the last one. */
#include "tcp.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at;
    int listening = listening_at(AF_INET, &at), clients[3];
    for (int i = 0; i < 3; i++) {
        clients[i] = connected_to(&at);
        if (i < 2)
            send_filled(clients[i], 100 * (size_t)(i + 1), (uint64_t)i);
    }
    subject_wait(NULL);
    MUST(fcntl(listening, F_SETFL, O_NONBLOCK));
    for (int i = 0; i < 3; i++) {
        int server = (int)MUST(accept(listening, NULL, NULL));
        if (i < 2)
            expect_arrives(server, 100 * (size_t)(i + 1), (uint64_t)i, "an accepted connection");
        send_filled(server, 10, 9);
        expect_arrives(clients[i], 10, 9, "the way back");
    }
    subject_pass();
}
