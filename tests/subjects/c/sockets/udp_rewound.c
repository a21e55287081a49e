/* Sockets that wait for datagrams of anybody, and one that waits for those of its peer and has others in its queue: in the
 * meantime they are connected to somebody, whose datagrams alone they would take. */
#include "tcp.h"

enum { BOUND, CHOSEN, CONNECTED, COUNT };
static int sockets[COUNT], others[2];
static struct address names[COUNT], senders[2];

static void hear(int fd, const char *text, const struct address *from)
{
    char got[16] = "";
    struct address sender = {.length = sizeof sender.six};
    ssize_t size = recvfrom(fd, got, sizeof got - 1, MSG_DONTWAIT, &sender.any, &sender.length);
    EXPECT(size == (ssize_t)strlen(text) && !strcmp(got, text), "not '%s' but '%s'", text, got);
    EXPECT(sender.four.sin_port == from->four.sin_port, "'%s' came from another port", text);
}

static void spoil(void)
{
    char byte[16];
    for (int i = 0; i < COUNT; i++) {
        while (recv(sockets[i], byte, sizeof byte, MSG_DONTWAIT) > 0)
            ;
        MUST(connect(sockets[i], &senders[i == CONNECTED].any, senders[0].length));
    }
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    for (int i = 0; i < 2; i++)
        others[i] = bound(AF_INET, SOCK_DGRAM, &senders[i]);
    for (int i = 0; i < COUNT; i++)
        sockets[i] = bound(AF_INET, SOCK_DGRAM, &names[i]);
    close(sockets[CHOSEN]); /* its port was chosen by the program */
    sockets[CHOSEN] = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
    MUST(bind(sockets[CHOSEN], &names[CHOSEN].any, names[CHOSEN].length));
    for (int i = 0; i < COUNT; i++)
        for (int n = 0; n < 2; n++)
            MUST(sendto(others[n], n ? "two" : "one", 3, 0, &names[i].any, names[i].length));
    MUST(connect(sockets[CONNECTED], &senders[0].any, senders[0].length));
    subject_wait(spoil);
    for (int i = 0; i < COUNT; i++) {
        struct address peer = {.length = sizeof peer.six};
        expect_same_address(sockets[i], 0, &names[i], "a socket");
        hear(sockets[i], "one", &senders[0]);
        hear(sockets[i], "two", &senders[1]);
        int has_peer = getpeername(sockets[i], &peer.any, &peer.length) == 0;
        EXPECT(has_peer == (i == CONNECTED), "socket %d is %sconnected", i, has_peer ? "" : "not ");
        MUST(sendto(others[1], "three", 5, 0, &names[i].any, names[i].length));
        if (i != CONNECTED)
            hear(sockets[i], "three", &senders[1]);
    }
    EXPECT(recv(sockets[CONNECTED], (char[8]){0}, 8, MSG_DONTWAIT) == -1, "a stranger is heard");
    subject_pass();
}
