/* A listener without SO_REUSEADDR, and a connection that it accepted: killed, that must not keep the port. */
#include "tcp.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at;
    int listening = listening_at(AF_INET, &at), client = connected_to(&at);
    int server = (int)MUST(accept(listening, NULL, NULL)); /* the last one is closed first: its port is kept */
    subject_wait(NULL);
    send_filled(client, 1000, 1);
    expect_arrives(server, 1000, 1, "from the client");
    int another = connected_to(&at), accepted = (int)MUST(accept(listening, NULL, NULL));
    send_filled(another, 100, 2);
    expect_arrives(accepted, 100, 2, "from a new client");
    int value = -1;
    socklen_t length = sizeof value;
    MUST(getsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &value, &length));
    EXPECT(value == 0, "SO_REUSEADDR is set");
    subject_pass();
}
