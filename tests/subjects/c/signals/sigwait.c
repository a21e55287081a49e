/* A thread that waits in sigwaitinfo gets the signal that is sent afterwards. */
#include "../subject.h"
#include <pthread.h>
#include <signal.h>

static sigset_t set;
static volatile int got;

static void *run(void *argument)
{
    (void)argument;
    siginfo_t info;
    int number;
    while ((number = sigwaitinfo(&set, &info)) == -1 && errno == EINTR)
        ;
    EXPECT(number == SIGRTMIN, "signal %d", number);
    got = info.si_value.sival_int;
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, run, NULL));
    subject_all_asleep(1);
    subject_wait(NULL);
    EXPECT(!got, "the wait ended without a signal");
    MUST(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 31}));
    MUST0(pthread_join(thread, NULL));
    EXPECT(got == 31, "value %d", got);
    subject_pass();
}
