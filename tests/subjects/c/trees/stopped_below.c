/* A child that SIGTSTP has stopped in the group of its parent, which leads it: the group is no orphan, because that one's
 * parent is in another. And a dead process of which two have a pidfd: these are of the same one. */
#include "tree.h"
#include <sys/syscall.h>

static int dead_pidfd;

static unsigned long inode(int fd)
{
    struct stat found;
    MUST(fstat(fd, &found));
    return found.st_ino;
}

static int idle(int told, void *argument)
{
    (void)argument;
    child_wait(told);
    return 6;
}

static int lead(int told, void *argument)
{
    int *ready = argument, status;
    MUST(setpgid(0, 0));
    struct child below = child_start(idle, NULL);
    MUST(kill(below.pid, SIGTSTP));
    MUST(waitpid(below.pid, &status, WUNTRACED));
    MUST(write(ready[1], "x", 1));
    child_wait(told);
    siginfo_t info = {0};
    MUST(waitid(P_PID, (id_t)below.pid, &info, WSTOPPED | WNOHANG | WNOWAIT));
    if (info.si_pid || child_state(below.pid) != 'T')
        return 1;
    unsigned long own = inode(dead_pidfd);
    MUST(write(ready[1], &own, sizeof own));
    MUST(kill(below.pid, SIGCONT));
    child_tell(below);
    child_expect_exit(below, 6, "the one below");
    return 5;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int ready[2];
    char byte;
    MUST(pipe(ready));
    pid_t dead = (pid_t)MUST(fork());
    if (dead == 0)
        _exit(0);
    dead_pidfd = (int)MUST(syscall(SYS_pidfd_open, dead, 0));
    MUST(waitpid(dead, NULL, 0));
    struct child leader = child_start(lead, ready);
    MUST(read(ready[0], &byte, 1));
    subject_wait(NULL);
    child_tell(leader);
    unsigned long theirs = 0;
    MUST(read(ready[0], &theirs, sizeof theirs));
    EXPECT(theirs == inode(dead_pidfd), "the pidfds are of two processes");
    child_expect_exit(leader, 5, "the leader");
    subject_pass();
}
