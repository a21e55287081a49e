/* pidfds of processes that have ended and were waited for: two of one, which show the same inode, and one of another. */
#include "../subject.h"
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static ino_t number(int fd)
{
    struct stat found;
    MUST(fstat(fd, &found));
    return found.st_ino;
}

/* How one has ended, which OS kernels tell since 6.15; -1 where this one does not, or nobody knows. */
static int ended_how(int fd)
{
    struct {
        uint64_t mask;
        char others[52];
        int32_t status;
    } told = {.mask = 8};
    return ioctl(fd, _IOWR(0xff, 11, told), &told) == 0 && told.mask & 8 ? told.status : -1;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pid_t pids[] = {(pid_t)MUST(fork()), 0};
    if (pids[0] == 0)
        _exit(3);
    pids[1] = (pid_t)MUST(fork());
    if (pids[1] == 0)
        raise(SIGKILL);
    int fds[3];
    for (int i = 0; i < 3; i++)
        fds[i] = (int)MUST(syscall(SYS_pidfd_open, pids[i / 2], 0));
    bool differ = number(fds[0]) != number(fds[2]); /* since OS kernel 6.9 */
    MUST(waitpid(pids[0], NULL, 0));
    MUST(waitpid(pids[1], NULL, 0));
    int status[] = {ended_how(fds[0]), ended_how(fds[2])};
    subject_wait(NULL);
    for (int i = 0; i < 3 && geteuid() == 0; i++) /* in an ordinary user's fresh tree all of them were killed */
        EXPECT(ended_how(fds[i]) == status[i / 2], "pidfd %d: it ended by %x", i, ended_how(fds[i]));
    EXPECT(number(fds[0]) == number(fds[1]), "two of one process are of different ones");
    EXPECT((number(fds[0]) != number(fds[2])) == differ, "those of two processes are of one");
    for (int i = 0; i < 3; i++) {
        struct pollfd asked = {.fd = fds[i], .events = POLLIN};
        EXPECT(poll(&asked, 1, 0) == 1 && asked.revents & POLLIN, "pidfd %d is of one that lives", i);
        EXPECT(syscall(SYS_pidfd_send_signal, fds[i], 0, NULL, 0) == -1 && errno == ESRCH, "pidfd %d: %s", i, strerror(errno));
    }
    subject_pass();
}
