/* A pidfd of the process itself: signals sent through it arrive. */
#include "../subject.h"
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>

static volatile sig_atomic_t got;
static void handler(int number) { got = number; }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction act = {.sa_handler = handler};
    MUST(sigaction(SIGUSR2, &act, NULL));
    int fd = (int)MUST(syscall(SYS_pidfd_open, getpid(), 0));
    subject_wait(NULL);
    MUST(syscall(SYS_pidfd_send_signal, fd, SIGUSR2, NULL, 0));
    EXPECT(got == SIGUSR2, "the signal went to somebody else");
    struct pollfd ask = {.fd = fd, .events = POLLIN};
    EXPECT(poll(&ask, 1, 0) == 0, "it says that the process has ended");
    subject_pass();
}
