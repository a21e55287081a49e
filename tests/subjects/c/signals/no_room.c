/* Signals that are pending without a record of who sent them, because the limit is reached. */
#include "../subject.h"
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct rlimit before, none;
    sigset_t both;
    sigemptyset(&both);
    sigaddset(&both, SIGUSR1);
    sigaddset(&both, SIGTERM);
    MUST(sigprocmask(SIG_BLOCK, &both, NULL));
    MUST(getrlimit(RLIMIT_SIGPENDING, &before));
    none = (struct rlimit){0, before.rlim_max};
    MUST(setrlimit(RLIMIT_SIGPENDING, &none));
    MUST0(pthread_kill(pthread_self(), SIGTERM));
    MUST(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 1}));
    subject_wait(NULL);
    sigset_t found;
    MUST(sigpending(&found));
    EXPECT(sigismember(&found, SIGTERM), "the thread's is gone");
    EXPECT(sigismember(&found, SIGUSR1), "the process's is gone");
    subject_pass();
}
