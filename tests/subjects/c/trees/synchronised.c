/* Mutexes, conditions and semaphores in memory that a child shares: held, waited for, robust when their owner dies. */
#include "tree.h"
#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>

static struct {
    pthread_mutex_t mutex, robust, guard;
    pthread_cond_t condition;
    sem_t semaphore;
    bool turn;
    volatile int steps;
} *shared;

static int work(int told, void *argument)
{
    (void)told, (void)argument;
    MUST0(pthread_mutex_lock(&shared->robust));
    shared->steps = 1;
    MUST0(pthread_mutex_lock(&shared->mutex)); /* the parent has it */
    shared->steps = 2;
    MUST(sem_wait(&shared->semaphore));
    shared->steps = 3;
    MUST0(pthread_mutex_lock(&shared->guard));
    while (!shared->turn)
        MUST0(pthread_cond_wait(&shared->condition, &shared->guard));
    return 6; /* with the robust mutex */
}

static void await(int steps)
{
    for (int i = 0; i < 2500 && shared->steps < steps; i++)
        subject_tick();
    EXPECT(shared->steps == steps, "the child is at step %d instead of %d", shared->steps, steps);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    shared = MUST_MAP(mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    MUST0(pthread_mutex_init(&shared->mutex, &kind));
    MUST0(pthread_mutex_init(&shared->guard, &kind));
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    MUST0(pthread_mutex_init(&shared->robust, &kind));
    pthread_condattr_t condition;
    pthread_condattr_init(&condition);
    pthread_condattr_setpshared(&condition, PTHREAD_PROCESS_SHARED);
    MUST0(pthread_cond_init(&shared->condition, &condition));
    MUST(sem_init(&shared->semaphore, 1, 0));
    MUST0(pthread_mutex_lock(&shared->mutex));
    struct child child = child_start(work, NULL);
    await(1);
    while (child_state(child.pid) != 'S')
        subject_tick();
    subject_wait(NULL);
    EXPECT(shared->steps == 1, "the child went on to step %d", shared->steps);
    MUST0(pthread_mutex_unlock(&shared->mutex));
    await(2);
    MUST(sem_post(&shared->semaphore));
    await(3);
    MUST0(pthread_mutex_lock(&shared->guard));
    shared->turn = true;
    MUST0(pthread_cond_signal(&shared->condition));
    MUST0(pthread_mutex_unlock(&shared->guard));
    child_expect_exit(child, 6, "the child");
    EXPECT(pthread_mutex_lock(&shared->robust) == EOWNERDEAD, "nobody noticed the end of the robust mutex's owner");
    subject_pass();
}
