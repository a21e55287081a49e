/* SCHED_DEADLINE with its three times, and a slice of one's own under the usual policy. */
#include "../subject.h"
#include <pthread.h>
#include <sys/syscall.h>

struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
    uint32_t util_min, util_max;
};
static pthread_barrier_t set, checked;
static const struct attributes deadline = {.size = 56, .policy = 6, .flags = 1, .runtime = 2000000, .deadline = 50000000, .period = 80000000};
static struct attributes slice = {.size = 56, .policy = 0, .nice = 2, .runtime = 7000000};
static bool refused;

static void *run(void *argument)
{
    struct attributes *mine = argument, now;
    if (syscall(SYS_sched_setattr, 0, mine, 0))
        refused = mine->policy == 6;
    MUST(syscall(SYS_sched_getattr, 0, mine, sizeof *mine, 0)); /* as the OS kernel has taken it */
    pthread_barrier_wait(&set);
    pthread_barrier_wait(&checked);
    MUST(syscall(SYS_sched_getattr, 0, &now, sizeof now, 0));
    EXPECT(now.policy == mine->policy && now.nice == mine->nice && now.flags == mine->flags, "policy %u, flags %#lx", now.policy,
           (unsigned long)now.flags);
    EXPECT(now.runtime == mine->runtime && now.deadline == mine->deadline && now.period == mine->period,
           "runtime %lu, deadline %lu, period %lu", (unsigned long)now.runtime, (unsigned long)now.deadline,
           (unsigned long)now.period);
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_barrier_init(&set, NULL, 3);
    pthread_barrier_init(&checked, NULL, 3);
    pthread_t threads[2];
    static struct attributes first;
    first = deadline;
    MUST0(pthread_create(&threads[0], NULL, run, &first));
    MUST0(pthread_create(&threads[1], NULL, run, &slice));
    pthread_barrier_wait(&set);
    if (refused)
        subject_skip("SCHED_DEADLINE (CAP_SYS_NICE, all processors)");
    subject_all_asleep(2);
    subject_wait(NULL);
    pthread_barrier_wait(&checked);
    for (int i = 0; i < 2; i++)
        MUST0(pthread_join(threads[i], NULL));
    subject_pass();
}
