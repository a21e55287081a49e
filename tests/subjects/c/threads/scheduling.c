/* Each thread's policy, nice value and affinity. */
#include "../subject.h"
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define COUNT 3
static pthread_barrier_t set, checked;
static const int policies[COUNT] = {SCHED_OTHER, SCHED_BATCH, SCHED_IDLE};

static void *run(void *argument)
{
    int me = (int)(long)argument;
    id_t tid = (id_t)syscall(SYS_gettid);
    struct sched_param none = {0};
    MUST(sched_setscheduler(0, policies[me], &none));
    MUST(setpriority(PRIO_PROCESS, tid, 3 + me));
    cpu_set_t before, after;
    CPU_ZERO(&before);
    CPU_SET(me % sysconf(_SC_NPROCESSORS_ONLN), &before);
    if (sched_setaffinity(0, sizeof before, &before))
        MUST(sched_getaffinity(0, sizeof before, &before));
    pthread_barrier_wait(&set);
    pthread_barrier_wait(&checked);
    EXPECT(sched_getscheduler(0) == policies[me], "thread %d: policy %d", me, sched_getscheduler(0));
    int nice_now = getpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid));
    EXPECT(nice_now == 3 + me, "thread %d: nice %d", me, nice_now);
    MUST(sched_getaffinity(0, sizeof after, &after));
    EXPECT(CPU_EQUAL(&before, &after), "thread %d: affinity", me);
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
    subject_all_asleep(COUNT);
    subject_wait(NULL);
    EXPECT(sched_getscheduler(0) == SCHED_OTHER, "the main thread's policy changed");
    pthread_barrier_wait(&checked);
    for (int i = 0; i < COUNT; i++)
        MUST0(pthread_join(threads[i], NULL));
    subject_pass();
}
