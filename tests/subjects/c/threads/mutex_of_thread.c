/* Mutexes that know their owner, held by a thread that is not the first: recursive, errorcheck, PI, robust; in memory of all sorts. */
#include "../subject.h"
#include <pthread.h>
#include <stdlib.h>

static pthread_mutex_t recursive, inherits, robust;
static pthread_mutex_t *checking; /* from malloc */
static volatile int held, go_on;
static int passed;

static pthread_mutex_t *made(pthread_mutex_t *mutex, int type, int protocol, int sturdy)
{
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, type);
    pthread_mutexattr_setprotocol(&kind, protocol);
    pthread_mutexattr_setrobust(&kind, sturdy);
    MUST0(pthread_mutex_init(mutex, &kind));
    return mutex;
}

static void *hold(void *argument)
{
    (void)argument;
    MUST0(pthread_mutex_lock(&recursive));
    MUST0(pthread_mutex_lock(&recursive));
    MUST0(pthread_mutex_lock(checking));
    MUST0(pthread_mutex_lock(&inherits));
    MUST0(pthread_mutex_lock(&robust));
    pthread_mutex_t local;
    made(&local, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_PRIO_NONE, PTHREAD_MUTEX_STALLED);
    MUST0(pthread_mutex_lock(&local));
    held = 1;
    while (!go_on)
        subject_tick();
    EXPECT(pthread_mutex_trylock(&recursive) == 0, "a thread may not lock its recursive mutex again");
    for (int i = 0; i < 3; i++)
        EXPECT(pthread_mutex_unlock(&recursive) == 0, "a recursive mutex forgot that a thread owns it");
    EXPECT(pthread_mutex_lock(checking) == EDEADLK, "an errorcheck mutex forgot that a thread owns it");
    EXPECT(pthread_mutex_unlock(checking) == 0, "an errorcheck mutex cannot be unlocked by its owner");
    EXPECT(pthread_mutex_unlock(&inherits) == 0, "a PI mutex cannot be unlocked by its owner");
    EXPECT(pthread_mutex_unlock(&robust) == 0, "a robust mutex cannot be unlocked by its owner");
    EXPECT(pthread_mutex_unlock(&local) == 0, "an errorcheck mutex on the stack cannot be unlocked by its owner");
    return NULL;
}

static void *want(void *argument)
{
    MUST0(pthread_mutex_lock(argument));
    __atomic_add_fetch(&passed, 1, __ATOMIC_SEQ_CST);
    MUST0(pthread_mutex_unlock(argument));
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    made(&recursive, PTHREAD_MUTEX_RECURSIVE, PTHREAD_PRIO_NONE, PTHREAD_MUTEX_STALLED);
    made(&inherits, PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_INHERIT, PTHREAD_MUTEX_STALLED);
    made(&robust, PTHREAD_MUTEX_RECURSIVE, PTHREAD_PRIO_NONE, PTHREAD_MUTEX_ROBUST);
    checking = made(malloc(sizeof *checking), PTHREAD_MUTEX_ERRORCHECK, PTHREAD_PRIO_NONE, PTHREAD_MUTEX_STALLED);
    pthread_t holder, wanting[3];
    MUST0(pthread_create(&holder, NULL, hold, NULL));
    while (!held)
        subject_tick();
    pthread_mutex_t *wanted[] = {&recursive, checking, &inherits};
    for (int i = 0; i < 3; i++)
        MUST0(pthread_create(&wanting[i], NULL, want, wanted[i]));
    subject_all_asleep(4);
    subject_wait(NULL);
    EXPECT(passed == 0, "%d threads got a mutex that was held", passed);
    go_on = 1;
    MUST0(pthread_join(holder, NULL));
    for (int i = 0; i < 3; i++)
        MUST0(pthread_join(wanting[i], NULL));
    EXPECT(passed == 3, "only %d threads passed", passed);
    subject_pass();
}
