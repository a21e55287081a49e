/* Threads blocked in waiting for signals: sigwaitinfo, sigtimedwait, sigsuspend, pause, ppoll with a mask. */
#include "blocked.h"
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>

static pid_t tids[5];
static volatile sig_atomic_t seen;
static void handler(int number) { seen = number; }

static void note(int me) { tids[me] = (pid_t)syscall(SYS_gettid); }
static void wake(int me, int number) { MUST(syscall(SYS_tgkill, getpid(), tids[me], number)); }
static sigset_t only(int number)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    return set;
}
static long by_sigwaitinfo(void)
{
    note(0);
    sigset_t set = only(SIGRTMIN + 1);
    return sigwaitinfo(&set, NULL) - SIGRTMIN;
}
static void wake_sigwaitinfo(void) { wake(0, SIGRTMIN + 1); }
static long by_sigtimedwait(void)
{
    note(1);
    sigset_t set = only(SIGRTMIN + 2);
    return sigtimedwait(&set, NULL, &(struct timespec){600, 0}) - SIGRTMIN;
}
static void wake_sigtimedwait(void) { wake(1, SIGRTMIN + 2); }
static long by_sigsuspend(void)
{
    note(2);
    sigset_t set;
    sigfillset(&set);
    sigdelset(&set, SIGUSR1);
    return sigsuspend(&set) == -1 && errno == EINTR && seen == SIGUSR1;
}
static void wake_sigsuspend(void) { wake(2, SIGUSR1); }
static long by_pause(void)
{
    note(3);
    sigset_t set = only(SIGUSR2);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return pause() == -1 && errno == EINTR && seen == SIGUSR2;
}
static void wake_pause(void) { wake(3, SIGUSR2); }
static long by_ppoll(void)
{
    note(4);
    sigset_t set;
    sigfillset(&set);
    sigdelset(&set, SIGURG);
    return ppoll(NULL, 0, NULL, &set) == -1 && errno == EINTR && seen == SIGURG;
}
static void wake_ppoll(void) { wake(4, SIGURG); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigset_t set;
    sigfillset(&set);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    static const int numbers[] = {SIGUSR1, SIGUSR2, SIGURG};
    for (int i = 0; i < 3; i++)
        MUST(sigaction(numbers[i], &(struct sigaction){.sa_handler = handler}, NULL));
    struct blocked all[] = {WAITS("sigwaitinfo", sigwaitinfo, 1),
                            WAITS("sigtimedwait", sigtimedwait, 2),
                            WAITS("sigsuspend", sigsuspend, 1),
                            WAITS("pause", pause, 1),
                            WAITS("ppoll with a mask", ppoll, 1)};
    BLOCKED_THROUGH(all);
    subject_pass();
}
