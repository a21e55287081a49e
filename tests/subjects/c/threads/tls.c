/* Thread-local variables differ between threads and keep their values and addresses. */
#include "../subject.h"
#include <pthread.h>

#define COUNT 8
static __thread uint64_t value = 77;
static __thread char buffer[4096];
static pthread_barrier_t set, checked;
static uint64_t *addresses[COUNT];

static void *run(void *argument)
{
    long me = (long)argument;
    value = subject_mix((uint64_t)me);
    subject_fill(buffer, sizeof buffer, (uint64_t)me);
    addresses[me] = &value;
    pthread_barrier_wait(&set);
    pthread_barrier_wait(&checked);
    EXPECT(addresses[me] == &value, "thread %ld: its variable moved", me);
    EXPECT(value == subject_mix((uint64_t)me), "thread %ld: its variable changed", me);
    EXPECT_FILLED(buffer, sizeof buffer, (uint64_t)me, "a thread's buffer");
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
    value = 78;
    subject_all_asleep(COUNT);
    subject_wait(NULL);
    EXPECT(value == 78, "the main thread's variable is %lu", (unsigned long)value);
    pthread_barrier_wait(&checked);
    for (int i = 0; i < COUNT; i++)
        MUST0(pthread_join(threads[i], NULL));
    subject_pass();
}
