/* Socketpairs shut down in one direction, and with the other end closed. */
#include "../subject.h"
#include <signal.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    int shut[2], closed[2];
    char text[20] = "";
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, shut));
    MUST(send(shut[0], "last", 4, 0));
    MUST(shutdown(shut[0], SHUT_WR));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, closed));
    MUST(send(closed[0], "words", 5, 0));
    MUST(close(closed[0]));
    subject_wait(NULL);
    EXPECT(recv(shut[1], text, sizeof text, 0) == 4 && !strcmp(text, "last"), "'%s' was left", text);
    EXPECT(recv(shut[1], text, sizeof text, MSG_DONTWAIT) == 0, "no end after the shutdown");
    EXPECT(send(shut[0], "x", 1, 0) == -1 && errno == EPIPE, "the shut direction is open");
    EXPECT(send(shut[1], "x", 1, 0) == 1 && recv(shut[0], text, 1, 0) == 1, "the other direction is shut");
    EXPECT(recv(closed[1], text, sizeof text, 0) == 5, "what the closed end had sent is gone");
    EXPECT(recv(closed[1], text, sizeof text, MSG_DONTWAIT) == 0, "no end after the close");
    EXPECT(send(closed[1], "x", 1, 0) == -1 && errno == EPIPE, "somebody listens at the closed end");
    subject_pass();
}
