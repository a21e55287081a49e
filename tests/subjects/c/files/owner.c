/* Who is told of input by which signal: F_SETOWN, F_SETSIG, O_ASYNC. */
#include "../subject.h"
#include <signal.h>

static int ends[2];
static void spoil(void) { fcntl(ends[0], F_SETSIG, 0), fcntl(ends[0], F_SETOWN, 0); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 4);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    MUST(pipe(ends));
    MUST(fcntl(ends[0], F_SETOWN, getpid()));
    MUST(fcntl(ends[0], F_SETSIG, SIGRTMIN + 4));
    MUST(fcntl(ends[0], F_SETFL, O_ASYNC | O_NONBLOCK));
    subject_wait(spoil);
    EXPECT(fcntl(ends[0], F_GETSIG) == SIGRTMIN + 4, "signal %d", fcntl(ends[0], F_GETSIG));
    EXPECT(fcntl(ends[0], F_GETOWN) == atoi(subject_proc("status", "Pid:")), "owner %d", fcntl(ends[0], F_GETOWN));
    EXPECT(fcntl(ends[0], F_GETFL) & O_ASYNC, "O_ASYNC is lost");
    MUST(write(ends[1], "x", 1));
    siginfo_t info;
    struct timespec limit = {5, 0};
    EXPECT(sigtimedwait(&set, &info, &limit) == SIGRTMIN + 4 && info.si_fd == ends[0], "no signal about the input");
    subject_pass();
}
