/* Who made the other end of a socket pair (SO_PEERCRED): this process, a child. */
#include "../trees/tree.h"
#include <sys/socket.h>

static void expect_peer(int fd, pid_t pid, const char *what)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    MUST(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size));
    EXPECT(peer.pid == pid, "%s was made by process %d, not %d", what, (int)peer.pid, (int)pid);
    EXPECT(peer.uid == getuid() && peer.gid == getgid(), "%s was made by user %u", what, peer.uid);
}

static int child_main(int told, void *argument)
{
    int pair[2];
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
    MUST(write(*(int *)argument, "r", 1));
    child_wait(told);
    expect_peer(pair[1], getpid(), "a child's pair");
    return 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int stream[2], packets[2], ready[2];
    char byte;
    MUST(pipe(ready));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, stream));
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, packets));
    MUST(write(stream[0], "waits", 5));
    struct child child = child_start(child_main, &ready[1]);
    MUST(read(ready[0], &byte, 1));
    subject_wait(NULL);
    expect_peer(stream[0], getpid(), "a stream");
    expect_peer(stream[1], getpid(), "its other end");
    expect_peer(packets[0], getpid(), "a pair for datagrams");
    char text[8];
    EXPECT(read(stream[1], text, sizeof text) == 5, "what waits is lost");
    child_tell(child);
    child_expect_exit(child, 0, "the child");
    subject_pass();
}
