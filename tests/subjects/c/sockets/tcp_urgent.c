/* TCP with urgent data waiting, in line and out of it, and both ends shut down. */
#include "tcp.h"

static void pair(int *ends)
{
    struct address at;
    int listening = listening_at(AF_INET, &at);
    ends[0] = connected_to(&at), ends[1] = (int)MUST(accept(listening, NULL, NULL));
    MUST(close(listening));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int in_line[2], both[2], one = 1;
    pair(in_line);
    MUST(setsockopt(in_line[1], SOL_SOCKET, SO_OOBINLINE, &one, sizeof one));
    send_filled(in_line[0], 100, 1);
    MUST(send(in_line[0], "!", 1, MSG_OOB));
    send_filled(in_line[0], 50, 2);
    pair(both);
    send_filled(both[0], 300, 3);
    send_filled(both[1], 400, 4);
    MUST(shutdown(both[0], SHUT_WR));
    MUST(shutdown(both[1], SHUT_WR));
    subject_wait(NULL);
    expect_arrives(in_line[1], 100, 1, "before the urgent byte");
    char byte = 0;
    EXPECT(recv(in_line[1], &byte, 1, MSG_DONTWAIT) == 1 && byte == '!', "the urgent byte is %d", byte);
    expect_arrives(in_line[1], 50, 2, "behind the urgent byte");
    expect_arrives(both[1], 300, 3, "from the first end");
    expect_arrives(both[0], 400, 4, "from the second end");
    EXPECT(recv(both[0], &byte, 1, MSG_DONTWAIT) == 0 && recv(both[1], &byte, 1, MSG_DONTWAIT) == 0, "no end");
    subject_pass();
}
