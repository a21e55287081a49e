/* Messages without data, first and later ones, of which the program has looked at the first already (MSG_PEEK). */
#include "tcp.h"

enum { DATAGRAM, PACKET, UDP, KINDS };
static int ends[KINDS][2];

static void expect_next(int kind, const char *text, int flags)
{
    char room[16] = "";
    long got = recv(ends[kind][1], room, sizeof room, MSG_DONTWAIT | flags);
    bool same = got == (long)strlen(text) && memcmp(room, text, (size_t)got) == 0;
    EXPECT(same, "%d: %ld bytes instead of \"%s\"", kind, got, text);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at;
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends[DATAGRAM]));
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends[PACKET]));
    ends[UDP][1] = bound(AF_INET, SOCK_DGRAM, &at), ends[UDP][0] = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
    MUST(connect(ends[UDP][0], &at.any, at.length));
    const char *texts[] = {"", "", "text", "", "more"};
    for (int kind = 0; kind < KINDS; kind++) {
        for (int i = 0; i < 5; i++)
            MUST(send(ends[kind][0], texts[i], strlen(texts[i]), 0));
        expect_next(kind, "", MSG_PEEK);
        expect_next(kind, "", MSG_PEEK);
    }
    MUST(shutdown(ends[PACKET][0], SHUT_WR));
    subject_wait(NULL);
    for (int kind = 0; kind < KINDS; kind++)
        for (int i = 0; i < 5; i++)
            expect_next(kind, texts[i], 0);
    subject_pass();
}
