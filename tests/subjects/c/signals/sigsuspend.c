/* A thread in sigsuspend: the temporary mask stays until the signal comes, then the old one is back. */
#include "../subject.h"
#include <pthread.h>
#include <signal.h>

static volatile sig_atomic_t seen;
static volatile bool suspended;

static void handler(int number) { seen = number; }

static void *run(void *argument)
{
    (void)argument;
    sigset_t open, now;
    pthread_sigmask(SIG_SETMASK, NULL, &open);
    sigdelset(&open, SIGUSR1);
    suspended = true;
    int result = sigsuspend(&open);
    EXPECT(result == -1 && errno == EINTR && seen == SIGUSR1, "sigsuspend ended by signal %d", (int)seen);
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    EXPECT(sigismember(&now, SIGUSR1), "the mask from before sigsuspend did not come back");
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction act = {.sa_handler = handler};
    MUST(sigaction(SIGUSR1, &act, NULL));
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, run, NULL));
    while (!suspended)
        subject_tick();
    subject_all_asleep(1);
    subject_wait(NULL);
    EXPECT(!seen, "sigsuspend ended without its signal");
    MUST0(pthread_kill(thread, SIGUSR1));
    MUST0(pthread_join(thread, NULL));
    subject_pass();
}
