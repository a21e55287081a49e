/* Shared anonymous memory and a memfd mapped by parent and child: one memory still, with a mutex and semaphore in it. */
#include "tree.h"
#include <pthread.h>
#include <semaphore.h>
#include <sys/mman.h>

struct shared {
    pthread_mutex_t mutex;
    sem_t asked, answered;
    int count;
    char area[1 << 16];
};
static struct shared *shared;
static char *by_memfd;

static int work(int told, void *argument)
{
    (void)argument, (void)told;
    while (sem_wait(&shared->asked) == -1 && errno == EINTR)
        ;
    EXPECT_FILLED(shared->area, sizeof shared->area, 1, "what the child sees");
    MUST0(pthread_mutex_lock(&shared->mutex));
    shared->count++;
    MUST0(pthread_mutex_unlock(&shared->mutex));
    by_memfd[5000] = 'c';
    MUST(sem_post(&shared->answered));
    return 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    shared = MUST_MAP(mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    int fd = (int)MUST(memfd_create("shared", 0));
    MUST(ftruncate(fd, 10000));
    by_memfd = MUST_MAP(mmap(NULL, 10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    close(fd);
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&shared->mutex, &kind);
    MUST(sem_init(&shared->asked, 1, 0));
    MUST(sem_init(&shared->answered, 1, 0));
    struct child child = child_start(work, NULL);
    subject_fill(shared->area, sizeof shared->area, 1);
    subject_wait(NULL);
    EXPECT(shared->count == 0, "the child woke by itself");
    MUST(sem_post(&shared->asked));
    while (sem_wait(&shared->answered) == -1 && errno == EINTR)
        ;
    EXPECT(shared->count == 1, "what the child wrote does not arrive");
    EXPECT(by_memfd[5000] == 'c', "the memfd is no longer shared");
    child_expect_exit(child, 0, "the child");
    subject_pass();
}
