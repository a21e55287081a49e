/* Whom the ends of a connection through a listener name (SO_PEERCRED, SO_PEERGROUPS), and what waits its sender. */
#include "../trees/tree.h"
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un address = {.sun_family = AF_UNIX};
static socklen_t address_bytes;

static void expect_peer(int fd, pid_t pid, const char *what)
{
    struct ucred peer;
    socklen_t size = sizeof peer, groups_bytes = 0;
    MUST(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size));
    EXPECT(peer.pid == pid, "%s was made by process %d, not %d", what, (int)peer.pid, (int)pid);
    EXPECT(peer.uid == getuid() && peer.gid == getgid(), "%s was made by user %u", what, peer.uid);
    gid_t groups[64];
    groups_bytes = sizeof groups;
    MUST(getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &groups_bytes));
    EXPECT((int)(groups_bytes / sizeof *groups) == getgroups(0, NULL), "%s has %u bytes of groups", what, groups_bytes);
}

static int child_main(int told, void *ready)
{
    int fd = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(connect(fd, (struct sockaddr *)&address, address_bytes));
    MUST(write(fd, "child", 5));
    MUST(write(*(int *)ready, "r", 1));
    child_wait(told);
    expect_peer(fd, getppid(), "the listener's end");
    return 0;
}

static void expect_sender(int fd, pid_t pid)
{
    char text[16], control[256];
    struct iovec vector = {text, sizeof text};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    EXPECT(recvmsg(fd, &message, 0) == 5 && memcmp(text, "child", 5) == 0, "what waits is lost");
    struct cmsghdr *found = CMSG_FIRSTHDR(&message);
    EXPECT(found && found->cmsg_type == SCM_CREDENTIALS, "no sender is named");
    struct ucred sender;
    memcpy(&sender, CMSG_DATA(found), sizeof sender);
    EXPECT(geteuid() != 0 || sender.pid == pid, "process %d has sent what waits, not %d", (int)sender.pid, (int)pid);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int ready[2], on = 1, listener = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    char byte;
    MUST(pipe(ready));
    int length = sprintf(address.sun_path + 1, "nbcr-accepted-%d", (int)getpid());
    address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    MUST(bind(listener, (struct sockaddr *)&address, address_bytes));
    MUST(setsockopt(listener, SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    MUST(listen(listener, 4));
    struct child child = child_start(child_main, &ready[1]);
    MUST(read(ready[0], &byte, 1));
    int accepted = (int)MUST(accept(listener, NULL, NULL));
    MUST(setsockopt(accepted, SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    subject_wait(NULL);
    expect_peer(accepted, child.pid, "the child's end");
    expect_sender(accepted, child.pid);
    child_tell(child);
    child_expect_exit(child, 0, "the child");
    subject_pass();
}
