/* Threads begin and end all the time, also while the freeze looks for them; none is lost or counted twice. */
#include "../subject.h"
#include <pthread.h>

static volatile bool end;
static volatile long begun, ended;

static void *brief(void *argument)
{
    __atomic_add_fetch(&begun, 1, __ATOMIC_SEQ_CST);
    for (volatile int i = 0; i < 2000; i++)
        ;
    __atomic_add_fetch(&ended, 1, __ATOMIC_SEQ_CST);
    return argument;
}

static void *spawner(void *argument)
{
    (void)argument;
    long made = 0;
    while (!end) {
        pthread_t pair[2];
        void *result;
        for (long i = 0; i < 2; i++, made++)
            MUST0(pthread_create(&pair[i], NULL, brief, (void *)(made + 7)));
        for (long i = 0; i < 2; i++) {
            MUST0(pthread_join(pair[i], &result));
            EXPECT(result == (void *)(made - 2 + i + 7), "a thread returned %p", result);
        }
    }
    return (void *)made;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        MUST0(pthread_create(&threads[i], NULL, spawner, NULL));
    while (ended < 100)
        subject_tick();
    subject_wait(NULL);
    long before = ended;
    for (int i = 0; i < 2000 && ended < before + 100; i++)
        subject_tick();
    EXPECT(ended >= before + 100, "no new threads begin");
    end = true;
    long made = 0;
    for (int i = 0; i < 2; i++) {
        void *count;
        MUST0(pthread_join(threads[i], &count));
        made += (long)count;
    }
    EXPECT(made == begun && begun == ended, "%ld made, %ld began, %ld ended", made, begun, ended);
    subject_pass();
}
