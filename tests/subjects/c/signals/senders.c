/* Queued signals of every origin, with their siginfo: kill, tgkill, sigqueue, a timer, a child's end, a descriptor. */
#include "../subject.h"
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static sigset_t all;

static siginfo_t take(int number)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, number);
    siginfo_t info;
    struct timespec none = {0};
    int got = (int)syscall(SYS_rt_sigtimedwait, &one, &info, &none, 8); /* glibc's hides SI_TKILL */
    EXPECT(got == number, "signal %d is not there: %d", number, got);
    return info;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigfillset(&all);
    MUST(sigprocmask(SIG_BLOCK, &all, NULL));
    MUST(kill(getpid(), SIGUSR1));
    MUST(syscall(SYS_tgkill, getpid(), (pid_t)syscall(SYS_gettid), SIGUSR2));
    void *pointer = &all;
    for (long i = 0; i < 3; i++)
        MUST(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_ptr = (char *)pointer + i}));
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2, .sigev_value.sival_int = 55};
    MUST(timer_create(CLOCK_MONOTONIC, &event, &timer));
    MUST(timer_settime(timer, 0, &(struct itimerspec){.it_value.tv_nsec = 1}, NULL));
    int ends[2];
    MUST(pipe(ends));
    MUST(fcntl(ends[0], F_SETOWN, getpid()));
    MUST(fcntl(ends[0], F_SETSIG, SIGRTMIN + 3));
    MUST(fcntl(ends[0], F_SETFL, O_ASYNC));
    MUST(write(ends[1], "x", 1));
    pid_t child = (pid_t)MUST(fork());
    if (child == 0)
        _exit(9);
    MUST(waitpid(child, NULL, 0));
    sigset_t pending;
    do {
        subject_tick();
        MUST(sigpending(&pending));
    } while (!sigismember(&pending, SIGRTMIN + 2));
    subject_wait(NULL);
    siginfo_t info = take(SIGUSR1);
    EXPECT(info.si_code == SI_USER && info.si_uid == getuid(), "SIGUSR1: code %d", info.si_code);
    EXPECT(take(SIGUSR2).si_code == SI_TKILL, "SIGUSR2's code");
    for (long i = 0; i < 3; i++)
        EXPECT(take(SIGRTMIN + 1).si_ptr == (char *)pointer + i, "value %ld of the queue", i);
    info = take(SIGRTMIN + 2);
    EXPECT(info.si_code == SI_TIMER && info.si_int == 55, "the timer's signal: code %d", info.si_code);
    info = take(SIGRTMIN + 3);
    EXPECT(info.si_fd == ends[0], "the descriptor's signal is of %d", info.si_fd);
    info = take(SIGCHLD);
    EXPECT(info.si_code == CLD_EXITED && info.si_pid == child && info.si_status == 9, "SIGCHLD: status %d", info.si_status);
    MUST(timer_settime(timer, 0, &(struct itimerspec){.it_value.tv_nsec = 1000000}, NULL));
    EXPECT(sigwaitinfo(&all, &info) == SIGRTMIN + 2 && info.si_int == 55, "the timer does not signal again");
    subject_pass();
}
