/* Children with threads; COUNT (argv[2]) children with PER (argv[3]) threads each. */
#include "tree.h"
#include <pthread.h>

static pthread_barrier_t set, checked;

static void *thread(void *argument)
{
    pthread_barrier_wait(&set);
    pthread_barrier_wait(&checked);
    return argument;
}

static int work(int told, void *argument)
{
    int count = *(int *)argument;
    pthread_barrier_init(&set, NULL, (unsigned)count + 1);
    pthread_barrier_init(&checked, NULL, (unsigned)count + 1);
    pthread_t threads[64];
    for (long i = 0; i < count; i++)
        MUST0(pthread_create(&threads[i], NULL, thread, (void *)i));
    pthread_barrier_wait(&set);
    child_wait(told);
    pthread_barrier_wait(&checked);
    for (long i = 0; i < count; i++) {
        void *result;
        MUST0(pthread_join(threads[i], &result));
        EXPECT(result == (void *)i, "a child's thread %ld returned %p", i, result);
    }
    return 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int count = argc > 2 ? atoi(argv[2]) : 4, per = argc > 3 ? atoi(argv[3]) : 5;
    struct child children[200];
    for (int i = 0; i < count; i++)
        children[i] = child_start(work, &per);
    for (int i = 0; i < count; i++) /* until every child has its threads */
        for (int threads = 0; threads < per + 1; subject_tick()) {
            char path[64], line[100];
            snprintf(path, sizeof path, "/proc/%d/status", (int)children[i].pid);
            FILE *status = fopen(path, "r");
            while (fgets(line, sizeof line, status))
                sscanf(line, "Threads: %d", &threads);
            fclose(status);
        }
    subject_wait(NULL);
    for (int i = 0; i < count; i++) {
        child_tell(children[i]);
        child_expect_exit(children[i], 0, "a child");
    }
    subject_pass();
}
