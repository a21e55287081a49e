/* Blocked signals that wait for the process, with their siginfo, in their order. */
#include "../subject.h"
#include <signal.h>

static sigset_t blocked;

static void spoil(void)
{
    siginfo_t info;
    struct timespec now = {0};
    while (sigtimedwait(&blocked, &info, &now) > 0)
        ;
}

static void expect_next(int number, int code, int value)
{
    siginfo_t info;
    struct timespec now = {0};
    int got = sigtimedwait(&blocked, &info, &now);
    EXPECT(got == number, "signal %d comes instead of %d", got, number);
    EXPECT(info.si_code == code, "signal %d has code %d instead of %d", got, info.si_code, code);
    EXPECT(info.si_uid == getuid(), "signal %d comes from user %d", got, (int)info.si_uid);
    EXPECT(info.si_pid == subject_root, "signal %d comes from process %d", got, (int)info.si_pid);
    if (code == SI_QUEUE)
        EXPECT(info.si_value.sival_int == value, "signal %d carries %d", got, info.si_value.sival_int);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGRTMIN + 3);
    sigaddset(&blocked, SIGRTMIN + 5);
    MUST(sigprocmask(SIG_BLOCK, &blocked, NULL));
    for (int i = 0; i < 5; i++)
        MUST(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 100 + i}));
    MUST(sigqueue(getpid(), SIGRTMIN + 5, (union sigval){.sival_int = 7}));
    MUST(kill(getpid(), SIGUSR1));
    MUST(sigqueue(getpid(), SIGTERM, (union sigval){.sival_int = -9}));
    subject_wait(spoil);
    expect_next(SIGUSR1, SI_USER, 0);
    expect_next(SIGTERM, SI_QUEUE, -9);
    for (int i = 0; i < 5; i++)
        expect_next(SIGRTMIN + 3, SI_QUEUE, 100 + i);
    expect_next(SIGRTMIN + 5, SI_QUEUE, 7);
    siginfo_t info;
    struct timespec now = {0};
    EXPECT(sigtimedwait(&blocked, &info, &now) == -1, "one signal too many: %d", info.si_signo);
    subject_pass();
}
