/* Every thread's name. */
#include "../subject.h"
#include <pthread.h>

#define COUNT 5
static pthread_barrier_t set, checked;

static void name_of(long me, char *name) { snprintf(name, 16, "worker %ld/%d", me, COUNT); }

static void *run(void *argument)
{
    char mine[16], now[16];
    name_of((long)argument, mine);
    MUST0(pthread_setname_np(pthread_self(), mine));
    pthread_barrier_wait(&set);
    pthread_barrier_wait(&checked);
    MUST0(pthread_getname_np(pthread_self(), now, sizeof now));
    EXPECT(strcmp(now, mine) == 0, "'%s' instead of '%s'", now, mine);
    return NULL;
}

static void spoil(void) { pthread_setname_np(pthread_self(), "spoilt"); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_barrier_init(&set, NULL, COUNT + 1);
    pthread_barrier_init(&checked, NULL, COUNT + 1);
    pthread_t threads[COUNT];
    for (long i = 0; i < COUNT; i++)
        MUST0(pthread_create(&threads[i], NULL, run, (void *)i));
    pthread_barrier_wait(&set);
    MUST0(pthread_setname_np(pthread_self(), "the main one"));
    subject_all_asleep(COUNT);
    subject_wait(spoil);
    char now[16];
    MUST0(pthread_getname_np(pthread_self(), now, sizeof now));
    EXPECT(strcmp(now, "the main one") == 0, "the main thread is called '%s'", now);
    pthread_barrier_wait(&checked);
    for (int i = 0; i < COUNT; i++)
        MUST0(pthread_join(threads[i], NULL));
    subject_pass();
}
