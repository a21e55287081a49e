/* Memory that is kept out of forks and let in again all the time: also between a look at it and the freeze. */
#include "../subject.h"
#include <pthread.h>
#include <sys/mman.h>

#define SIZE (1 << 16)

static char *memory;
static volatile bool over;

static void *change(void *unused)
{
    (void)unused;
    while (!over) {
        MUST(madvise(memory, SIZE, MADV_DONTFORK));
        usleep(4000);
        MUST(madvise(memory, SIZE, MADV_DOFORK));
        usleep(4000);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    memset(memory, 7, SIZE);
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, change, NULL) == 0, "no thread");
    subject_wait(NULL);
    for (int i = 0; i < SIZE; i++)
        EXPECT(memory[i] == 7, "byte %d is %d", i, memory[i]);
    over = true;
    pthread_join(thread, NULL);
    subject_pass();
}
