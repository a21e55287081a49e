/* Semaphores, a barrier and a read-write lock, each with threads waiting. */
#include "../subject.h"
#include <pthread.h>
#include <semaphore.h>

static sem_t empty, full;
static pthread_barrier_t barrier;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static volatile int passed_sem, passed_barrier, passed_lock;

static void *wait_sem(void *argument)
{
    (void)argument;
    while (sem_wait(&empty) == -1)
        EXPECT(errno == EINTR, "sem_wait: %s", strerror(errno));
    passed_sem++;
    return NULL;
}

static void *wait_barrier(void *argument)
{
    (void)argument;
    pthread_barrier_wait(&barrier);
    passed_barrier++;
    return NULL;
}

static void *wait_lock(void *argument)
{
    (void)argument;
    MUST0(pthread_rwlock_wrlock(&lock));
    passed_lock++;
    MUST0(pthread_rwlock_unlock(&lock));
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(sem_init(&empty, 0, 0));
    MUST(sem_init(&full, 0, 3));
    pthread_barrier_init(&barrier, NULL, 2);
    MUST0(pthread_rwlock_rdlock(&lock));
    pthread_t threads[3];
    MUST0(pthread_create(&threads[0], NULL, wait_sem, NULL));
    MUST0(pthread_create(&threads[1], NULL, wait_barrier, NULL));
    MUST0(pthread_create(&threads[2], NULL, wait_lock, NULL));
    subject_all_asleep(3);
    subject_wait(NULL);
    int value = -1;
    sem_getvalue(&full, &value);
    EXPECT(value == 3, "a semaphore's value is %d", value);
    EXPECT(!passed_sem && !passed_barrier && !passed_lock, "a thread passed by itself");
    MUST(sem_post(&empty));
    MUST0(pthread_rwlock_unlock(&lock));
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 3; i++)
        MUST0(pthread_join(threads[i], NULL));
    EXPECT(passed_sem && passed_barrier && passed_lock, "a thread did not pass");
    subject_pass();
}
