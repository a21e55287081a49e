/* A signalfd: its set, and a signal that waits in it. */
#include "../subject.h"
#include <signal.h>
#include <sys/signalfd.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 2);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    sigaddset(&set, SIGWINCH);
    int fd = (int)MUST(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    MUST(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = 77}));
    subject_wait(NULL);
    struct signalfd_siginfo info;
    EXPECT(read(fd, &info, sizeof info) == sizeof info, "no signal waits");
    EXPECT(info.ssi_signo == (unsigned)SIGRTMIN + 2 && info.ssi_int == 77, "signal %u, %d", info.ssi_signo, info.ssi_int);
    EXPECT(read(fd, &info, sizeof info) == -1 && errno == EAGAIN, "another one waits");
    raise(SIGUSR1);
    EXPECT(read(fd, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR1, "a new signal does not come");
    EXPECT(fcntl(fd, F_GETFD) == FD_CLOEXEC, "close-on-exec is lost");
    subject_pass();
}
