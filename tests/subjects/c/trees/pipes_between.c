/* Pipes and a socketpair between parent and child, with content on the way in both directions. */
#include "tree.h"
#include <sys/socket.h>

static int down[2], up[2], pair[2];

static int work(int told, void *argument)
{
    (void)argument;
    close(down[1]), close(up[0]), close(pair[0]);
    MUST(write(up[1], "from below", 10));
    child_wait(told);
    char text[20] = "";
    EXPECT(read(down[0], text, 20) == 10 && !strcmp(text, "from above"), "the child reads '%s'", text);
    EXPECT(recv(pair[1], text, 20, 0) == 7, "the child's socket");
    MUST(send(pair[1], "answer", 6, 0));
    EXPECT(read(down[0], text, 20) == 0, "no end of file in the child");
    return 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(pipe(down));
    MUST(pipe(up));
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
    struct child child = child_start(work, NULL);
    close(down[0]), close(up[1]), close(pair[1]);
    MUST(write(down[1], "from above", 10));
    MUST(send(pair[0], "message", 7, 0));
    subject_wait(NULL);
    char text[20] = "";
    child_tell(child);
    EXPECT(read(up[0], text, 20) == 10 && !strcmp(text, "from below"), "the parent reads '%s'", text);
    EXPECT(recv(pair[0], text, 20, 0) == 6, "the parent's socket");
    close(down[1]);
    child_expect_exit(child, 0, "the child");
    EXPECT(read(up[0], text, 20) == 0, "no end of file in the parent");
    subject_pass();
}
