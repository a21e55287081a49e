/*
 * UDP sockets that hold back what they send (UDP_CORK), or cut it (UDP_SEGMENT): nothing is held back, the setting is
 * there. What another life has in the making is sent to nobody.
 */
#include "tcp.h"
#include <netinet/udp.h>
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

static int client, cutter, server, maker;

static int number(int fd, int name)
{
    int value = -1;
    socklen_t length = sizeof value;
    MUST(getsockopt(fd, IPPROTO_UDP, name, &value, &length));
    return value;
}

static void set(int fd, int name, int value) { MUST(setsockopt(fd, IPPROTO_UDP, name, &value, sizeof value)); }

static void spoil(void)
{
    char room[64];
    while (recv(server, room, sizeof room, MSG_DONTWAIT) > 0)
        ;
    MUST(send(maker, "never", 5, MSG_MORE));
    set(client, UDP_CORK, 0);
    set(cutter, UDP_SEGMENT, 0);
}

static void expect_text(const char *text)
{
    char room[64] = "";
    long got = recv(server, room, sizeof room, MSG_DONTWAIT);
    EXPECT(got == (long)strlen(text) && memcmp(room, text, (size_t)got) == 0, "%ld bytes, %s instead of %s", got, room, text);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at, from, cutter_at;
    client = bound(AF_INET, SOCK_DGRAM, &from), cutter = bound(AF_INET, SOCK_DGRAM, &cutter_at);
    server = bound(AF_INET, SOCK_DGRAM, &at);
    maker = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
    MUST(connect(maker, &at.any, at.length));
    MUST(connect(client, &at.any, at.length));
    MUST(connect(cutter, &at.any, at.length));
    set(client, UDP_CORK, 1);
    MUST(send(client, "to", 2, 0));
    MUST(send(client, "gether", 6, 0));
    set(client, UDP_CORK, 0);
    MUST(send(cutter, "a longer one", 12, 0));
    set(client, UDP_CORK, 1);
    set(cutter, UDP_SEGMENT, 3);
    subject_wait(spoil);
    EXPECT(number(client, UDP_CORK) == 1 && number(cutter, UDP_SEGMENT) == 3, "the settings are lost");
    expect_text("together");
    expect_text("a longer one");
    MUST(send(client, "hel", 3, 0));
    char room[64];
    EXPECT(recv(server, room, sizeof room, MSG_DONTWAIT) == -1, "it is not held back");
    MUST(send(client, "lo", 2, 0));
    set(client, UDP_CORK, 0);
    expect_text("hello");
    MUST(send(maker, "whole", 5, 0));
    expect_text("whole");
    MUST(send(cutter, "abcdef", 6, 0));
    expect_text("abc");
    expect_text("def");
    subject_pass();
}
