/* Threads that wait in one system call each, until something real happens; then the call must give that, not EINTR. */
#include "../subject.h"
#include <pthread.h>

struct blocked {
    const char *name;
    long (*wait)(void);   /* the call, which gives a negative number with errno when it fails */
    void (*wake)(void);   /* lets it go on */
    long wanted;          /* what it gives then */
    bool may_end;         /* also without being woken */
    volatile bool done;
};

/* A row of the table: by_NAME waits, wake_NAME ends that. */
#define WAITS(title, name, wanted) {title, by_##name, wake_##name, wanted, false, false}
#define WAITS_ALONE(title, name, wanted) {title, by_##name, NULL, wanted, false, false}

static void *blocked_run(void *argument)
{
    struct blocked *me = argument;
    errno = 0;
    long got = me->wait();
    int why = errno;
    EXPECT(got == me->wanted, "%s gives %ld instead of %ld: %s", me->name, got, me->wanted, strerror(why));
    me->done = true;
    return NULL;
}

/* Start one thread for each, be ready when all sleep, and wake one after the other. */
UNUSED static void blocked_through(struct blocked *all, int count)
{
    pthread_t threads[32];
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 256 << 10);
    for (int i = 0; i < count; i++)
        MUST0(pthread_create(&threads[i], &small, blocked_run, &all[i]));
    subject_all_asleep(count);
    subject_wait(NULL);
    for (int i = 0; i < count; i++)
        EXPECT(!all[i].done || all[i].may_end, "%s ended by itself", all[i].name);
    for (int i = 0; i < count; i++) {
        if (all[i].wake)
            all[i].wake();
        MUST0(pthread_join(threads[i], NULL));
    }
}
#define BLOCKED_THROUGH(all) blocked_through(all, (int)(sizeof(all) / sizeof *(all)))
