/* Threads that wait for a mutex get it, one after the other; a recursive and an errorcheck one know their owner. */
#include "../subject.h"
#include <pthread.h>

#define COUNT 4
static pthread_mutex_t plain = PTHREAD_MUTEX_INITIALIZER, recursive, checking;
static volatile int waiting;
static int inside, passed;

static void *run(void *argument)
{
    (void)argument;
    __atomic_add_fetch(&waiting, 1, __ATOMIC_SEQ_CST);
    MUST0(pthread_mutex_lock(&plain));
    EXPECT(++inside == 1, "two threads hold the mutex");
    passed++;
    inside--;
    MUST0(pthread_mutex_unlock(&plain));
    return NULL;
}

static void *try_all(void *argument)
{
    (void)argument;
    EXPECT(pthread_mutex_trylock(&recursive) == EBUSY, "the recursive mutex is free");
    EXPECT(pthread_mutex_trylock(&checking) == EBUSY, "the errorcheck mutex is free");
    EXPECT(pthread_mutex_unlock(&checking) == EPERM, "another thread may unlock the errorcheck mutex");
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&recursive, &kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&checking, &kind);
    MUST0(pthread_mutex_lock(&plain));
    MUST0(pthread_mutex_lock(&recursive));
    MUST0(pthread_mutex_lock(&recursive));
    MUST0(pthread_mutex_lock(&checking));
    pthread_t threads[COUNT], other;
    for (int i = 0; i < COUNT; i++)
        MUST0(pthread_create(&threads[i], NULL, run, NULL));
    while (waiting < COUNT)
        subject_tick();
    subject_all_asleep(COUNT);
    subject_wait(NULL);
    EXPECT(passed == 0, "%d threads got a mutex that was held", passed);
    MUST0(pthread_create(&other, NULL, try_all, NULL));
    MUST0(pthread_join(other, NULL));
    EXPECT(pthread_mutex_lock(&checking) == EDEADLK, "the errorcheck mutex forgot its owner");
    MUST0(pthread_mutex_unlock(&checking));
    MUST0(pthread_mutex_lock(&recursive));
    for (int i = 0; i < 3; i++)
        MUST0(pthread_mutex_unlock(&recursive));
    EXPECT(pthread_mutex_unlock(&recursive) == EPERM, "the recursive mutex lost count");
    MUST0(pthread_mutex_unlock(&plain));
    for (int i = 0; i < COUNT; i++)
        MUST0(pthread_join(threads[i], NULL));
    EXPECT(passed == COUNT, "only %d threads passed", passed);
    subject_pass();
}
