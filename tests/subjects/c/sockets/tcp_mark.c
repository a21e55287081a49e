/* TCP with the mark of an urgent byte that was read already: before it, at it, with something read of what is before it. */
#include "tcp.h"
#include <sys/ioctl.h>

enum { AHEAD, AT_MARK, NEARER, UNREAD, KINDS };
static int ends[KINDS][2];

static bool at_mark(int fd)
{
    int found = -1;
    MUST(ioctl(fd, SIOCATMARK, &found));
    return found == 1;
}

static void expect_next(int kind, const char *text)
{
    char room[16] = "";
    long got = recv(ends[kind][1], room, sizeof room, MSG_DONTWAIT);
    EXPECT(got == (long)strlen(text) && memcmp(room, text, (size_t)got) == 0, "%d: %s instead of %s", kind, room, text);
}

static void take(int kind, size_t size)
{
    char room[16];
    MUST(recv(ends[kind][1], room, size, MSG_DONTWAIT));
}

static void spoil(void)
{
    char room[16];
    for (int kind = 0; kind < KINDS; kind++)
        while (recv(ends[kind][1], room, 2, MSG_DONTWAIT) > 0)
            ;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char byte;
    for (int kind = 0; kind < KINDS; kind++) {
        struct address at;
        int listening = listening_at(AF_INET, &at);
        ends[kind][0] = connected_to(&at), ends[kind][1] = (int)MUST(accept(listening, NULL, NULL));
        MUST(close(listening));
        MUST(send(ends[kind][0], "abc", 3, 0));
        MUST(send(ends[kind][0], "!", 1, MSG_OOB));
        MUST(send(ends[kind][0], "def", 3, 0));
        if (kind != UNREAD)
            EXPECT(recv(ends[kind][1], &byte, 1, MSG_OOB) == 1 && byte == '!', "no urgent byte");
    }
    take(AT_MARK, 16);
    take(NEARER, 2);
    subject_wait(spoil);
    for (int kind = 0; kind < UNREAD; kind++)
        EXPECT(recv(ends[kind][1], &byte, 1, MSG_OOB) == -1 && errno == EINVAL, "%d: it can be read again", kind);
    EXPECT(recv(ends[UNREAD][1], &byte, 1, MSG_OOB) == 1 && byte == '!', "the unread one is lost");
    EXPECT(at_mark(ends[AT_MARK][1]), "not at the mark any more");
    expect_next(AHEAD, "abc");
    expect_next(NEARER, "c");
    expect_next(UNREAD, "abc");
    EXPECT(at_mark(ends[AHEAD][1]) && at_mark(ends[NEARER][1]), "the mark is not where it was");
    for (int kind = 0; kind < KINDS; kind++)
        expect_next(kind, "def");
    subject_pass();
}
