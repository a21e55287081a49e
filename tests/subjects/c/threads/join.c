/* Threads are joined with what they return: those that ended before, those that end afterwards, new ones. */
#include "../subject.h"
#include <pthread.h>

static volatile bool go;
static pthread_key_t key;
static int destroyed;

static void destroy(void *value) { destroyed += (int)(long)value; }

static void *late(void *argument)
{
    pthread_setspecific(key, (void *)1L);
    while (!go)
        subject_tick();
    return argument;
}

static void *early(void *argument) { return argument; }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_key_create(&key, destroy);
    pthread_t ended, running, detached, cancelled;
    void *result;
    MUST0(pthread_create(&ended, NULL, early, (void *)0x1234));
    MUST0(pthread_create(&running, NULL, late, (void *)0x5678));
    MUST0(pthread_create(&cancelled, NULL, late, NULL));
    MUST0(pthread_create(&detached, NULL, late, NULL));
    MUST0(pthread_detach(detached));
    subject_all_asleep(3);
    subject_wait(NULL);
    MUST0(pthread_cancel(cancelled));
    MUST0(pthread_join(cancelled, &result));
    EXPECT(result == PTHREAD_CANCELED, "the cancelled thread returned %p", result);
    go = true;
    MUST0(pthread_join(ended, &result));
    EXPECT(result == (void *)0x1234, "the thread that ended before returned %p", result);
    MUST0(pthread_join(running, &result));
    EXPECT(result == (void *)0x5678, "the thread that ended afterwards returned %p", result);
    for (long i = 0; i < 20; i++) {
        MUST0(pthread_create(&running, NULL, early, (void *)i));
        MUST0(pthread_join(running, &result));
        EXPECT(result == (void *)i, "new thread %ld returned %p", i, result);
    }
    EXPECT(destroyed >= 2, "%d key destructors ran", destroyed);
    subject_pass();
}
