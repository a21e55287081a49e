/* TCP inside, shut down by one side, with bytes on their way. */
#include "tcp.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at;
    int listening = listening_at(AF_INET, &at), client = connected_to(&at);
    int server = (int)MUST(accept(listening, NULL, NULL));
    send_filled(client, 5000, 1);
    MUST(shutdown(client, SHUT_WR));
    subject_wait(NULL);
    expect_arrives(server, 5000, 1, "from the client");
    char byte;
    EXPECT(recv(server, &byte, 1, MSG_DONTWAIT) == 0, "no end after the shutdown");
    send_filled(server, 500, 2);
    expect_arrives(client, 500, 2, "the open direction");
    subject_pass();
}
