/* Each thread has a blocked set of its own. */
#include "../subject.h"
#include <pthread.h>
#include <signal.h>

#define COUNT 6
static pthread_barrier_t set, checked;

static void *run(void *argument)
{
    int me = (int)(long)argument;
    sigset_t mine, now;
    sigemptyset(&mine);
    sigaddset(&mine, SIGHUP + me);
    sigaddset(&mine, SIGRTMIN + 2 * me);
    MUST0(pthread_sigmask(SIG_SETMASK, &mine, NULL));
    pthread_barrier_wait(&set);
    pthread_barrier_wait(&checked);
    MUST0(pthread_sigmask(SIG_SETMASK, NULL, &now));
    for (int n = 1; n < 65; n++)
        EXPECT(sigismember(&mine, n) == sigismember(&now, n), "thread %d, signal %d", me, n);
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_barrier_init(&set, NULL, COUNT + 1);
    pthread_barrier_init(&checked, NULL, COUNT + 1);
    pthread_t threads[COUNT];
    for (long i = 0; i < COUNT; i++)
        MUST0(pthread_create(&threads[i], NULL, run, (void *)i));
    pthread_barrier_wait(&set);
    subject_all_asleep(COUNT);
    subject_wait(NULL);
    pthread_barrier_wait(&checked);
    for (int i = 0; i < COUNT; i++)
        MUST0(pthread_join(threads[i], NULL));
    subject_pass();
}
