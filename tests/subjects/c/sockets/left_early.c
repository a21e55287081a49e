/* Connections that ended, or sent all they had to say, before anybody accepted them: they wait in their place. */
#include "tcp.h"
#include <sys/un.h>

static void say(int fd, const char *text)
{
    MUST(send(fd, text, strlen(text), MSG_NOSIGNAL));
}

static void hear(int server, const char *text)
{
    char got[16] = "";
    EXPECT(recv(server, got, strlen(text), MSG_WAITALL) == (ssize_t)strlen(text) && !strcmp(got, text),
           "not '%s' but '%.15s'", text, got);
}

/* One that is gone, one that has shut its side down and is returned, and the listener. */
static int clients(int listening, int type, const struct sockaddr *at, socklen_t length)
{
    MUST(listen(listening, 4));
    int family = at->sa_family, gone = (int)MUST(socket(family, type, 0)), ended = (int)MUST(socket(family, type, 0));
    MUST(connect(gone, at, length));
    say(gone, "gone");
    close(gone);
    MUST(connect(ended, at, length));
    say(ended, "ended");
    MUST(shutdown(ended, SHUT_WR));
    return ended;
}

static void check(int listening, int ended)
{
    char byte;
    MUST(fcntl(listening, F_SETFL, O_NONBLOCK));
    int first = (int)MUST(accept(listening, NULL, NULL)), second = (int)MUST(accept(listening, NULL, NULL));
    hear(first, "gone");
    EXPECT(recv(first, &byte, 1, 0) == 0, "the one that is gone sends more");
    hear(second, "ended");
    EXPECT(recv(second, &byte, 1, 0) == 0, "the one that has ended sends more");
    say(second, "answer");
    hear(ended, "answer");
    EXPECT(accept(listening, NULL, NULL) == -1 && errno == EAGAIN, "somebody else waits");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at;
    int tcp = bound(AF_INET, SOCK_STREAM, &at), tcp_client = clients(tcp, SOCK_STREAM, &at.any, at.length);
    int types[2] = {SOCK_STREAM, SOCK_SEQPACKET}, listening[2], client[2];
    for (int i = 0; i < 2; i++) {
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        snprintf(name.sun_path, sizeof name.sun_path, "%s", subject_path(i ? "packets" : "stream"));
        listening[i] = (int)MUST(socket(AF_UNIX, types[i], 0));
        MUST(bind(listening[i], (struct sockaddr *)&name, sizeof name));
        client[i] = clients(listening[i], types[i], (struct sockaddr *)&name, sizeof name);
    }
    subject_wait(NULL);
    check(tcp, tcp_client);
    for (int i = 0; i < 2; i++)
        check(listening[i], client[i]);
    subject_pass();
}
