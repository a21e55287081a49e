/* COUNT threads (argv[2], 200 by default), each with a value on its stack, all counted and joined. */
#include "../subject.h"
#include <pthread.h>

static pthread_barrier_t set, checked;

static void *run(void *argument)
{
    uint64_t local[16];
    subject_fill(local, sizeof local, (uint64_t)(long)argument);
    pthread_barrier_wait(&set);
    pthread_barrier_wait(&checked);
    EXPECT_FILLED(local, sizeof local, (uint64_t)(long)argument, "a thread's stack");
    return argument;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    long count = argc > 2 ? atol(argv[2]) : 200;
    pthread_barrier_init(&set, NULL, (unsigned)count + 1);
    pthread_barrier_init(&checked, NULL, (unsigned)count + 1);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    pthread_t *threads = calloc((size_t)count, sizeof *threads);
    for (long i = 0; i < count; i++)
        MUST0(pthread_create(&threads[i], &small, run, (void *)i));
    pthread_barrier_wait(&set);
    long before = atol(subject_proc("status", "Threads:"));
    subject_all_asleep((int)count);
    subject_wait(NULL);
    EXPECT(atol(subject_proc("status", "Threads:")) == before, "the number of threads changed");
    pthread_barrier_wait(&checked);
    for (long i = 0; i < count; i++) {
        void *result;
        MUST0(pthread_join(threads[i], &result));
        EXPECT(result == (void *)i, "thread %ld returned %p", i, result);
    }
    subject_pass();
}
