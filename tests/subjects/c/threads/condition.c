/* Threads that wait for a condition, with and without a time limit, hear the broadcast. */
#include "../subject.h"
#include <pthread.h>

#define COUNT 6
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int waiting, woken;
static bool told;

static void *run(void *argument)
{
    MUST0(pthread_mutex_lock(&mutex));
    waiting++;
    while (!told) {
        struct timespec limit = {time(NULL) + 600, 0};
        if ((long)argument % 2)
            MUST0(pthread_cond_timedwait(&condition, &mutex, &limit));
        else
            MUST0(pthread_cond_wait(&condition, &mutex));
    }
    woken++;
    MUST0(pthread_mutex_unlock(&mutex));
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t threads[COUNT];
    for (long i = 0; i < COUNT; i++)
        MUST0(pthread_create(&threads[i], NULL, run, (void *)i));
    for (int seen = 0; seen < COUNT; subject_tick()) {
        pthread_mutex_lock(&mutex);
        seen = waiting;
        pthread_mutex_unlock(&mutex);
    }
    subject_all_asleep(COUNT);
    subject_wait(NULL);
    MUST0(pthread_mutex_lock(&mutex));
    EXPECT(woken == 0, "%d threads woke by themselves", woken);
    told = true;
    MUST0(pthread_cond_broadcast(&condition));
    MUST0(pthread_mutex_unlock(&mutex));
    for (int i = 0; i < COUNT; i++)
        MUST0(pthread_join(threads[i], NULL));
    EXPECT(woken == COUNT, "%d threads woke", woken);
    subject_pass();
}
