/* Robust and priority-inheriting mutexes: owner known; a robust one is inherited when its owner ends. */
#include "../subject.h"
#include <pthread.h>
#include <sys/syscall.h>

static pthread_mutex_t robust, inheriting;
static volatile bool held, end, waiting, got;

static void *owner(void *argument)
{
    (void)argument;
    MUST0(pthread_mutex_lock(&robust));
    held = true;
    while (!end)
        subject_tick();
    return NULL;
}

static void *waiter(void *argument)
{
    (void)argument;
    waiting = true;
    MUST0(pthread_mutex_lock(&inheriting));
    got = true;
    MUST0(pthread_mutex_unlock(&inheriting));
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    MUST0(pthread_mutex_init(&robust, &kind));
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setprotocol(&kind, PTHREAD_PRIO_INHERIT);
    MUST0(pthread_mutex_init(&inheriting, &kind));
    void *head_before, *head_after;
    size_t length;
    MUST(syscall(SYS_get_robust_list, 0, &head_before, &length));
    pthread_t threads[2];
    MUST0(pthread_mutex_lock(&inheriting));
    MUST0(pthread_create(&threads[0], NULL, owner, NULL));
    MUST0(pthread_create(&threads[1], NULL, waiter, NULL));
    while (!held || !waiting)
        subject_tick();
    subject_all_asleep(2);
    subject_wait(NULL);
    MUST(syscall(SYS_get_robust_list, 0, &head_after, &length));
    EXPECT(head_before == head_after, "the robust list is at %p", head_after);
    EXPECT(!got, "a thread got a mutex that was held");
    MUST0(pthread_mutex_unlock(&inheriting));
    EXPECT(pthread_mutex_trylock(&robust) == EBUSY, "the robust mutex is free");
    end = true;
    MUST0(pthread_join(threads[0], NULL));
    EXPECT(pthread_mutex_lock(&robust) == EOWNERDEAD, "nobody noticed the end of the owner");
    MUST0(pthread_mutex_consistent(&robust));
    MUST0(pthread_mutex_unlock(&robust));
    MUST0(pthread_join(threads[1], NULL));
    EXPECT(got, "the waiting thread did not get the mutex");
    subject_pass();
}
