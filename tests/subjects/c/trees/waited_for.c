/* Threads in the midst of waiting for one child, by waitpid and by waitid, and for a group of processes. */
#include "tree.h"
#include <pthread.h>

static struct child children[4];
static int statuses[3];

static int work(int told, void *argument)
{
    child_wait(told);
    return 30 + (int)(long)argument;
}

static int work_in_a_group(int told, void *argument)
{
    MUST(setpgid(0, 0));
    return work(told, argument);
}

static void *by_pid(void *unused)
{
    int status;
    EXPECT(waitpid(children[0].pid, &status, 0) > 0, "waitpid of one: %s", strerror(errno));
    statuses[0] = WEXITSTATUS(status);
    return unused;
}

static void *by_id(void *unused)
{
    siginfo_t told;
    EXPECT(waitid(P_PID, (id_t)children[1].pid, &told, WEXITED) == 0, "waitid of one: %s", strerror(errno));
    statuses[1] = told.si_status;
    return unused;
}

static void *by_group(void *unused)
{
    int status;
    EXPECT(waitpid(-children[2].pid, &status, 0) > 0, "waitpid of a group: %s", strerror(errno));
    statuses[2] = WEXITSTATUS(status);
    return unused;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t threads[3];
    for (long i = 0; i < 4; i++)
        children[i] = child_start(i == 2 ? work_in_a_group : work, (void *)i);
    while (getpgid(children[2].pid) != children[2].pid)
        subject_tick();
    MUST0(pthread_create(&threads[0], NULL, by_pid, NULL));
    MUST0(pthread_create(&threads[1], NULL, by_id, NULL));
    MUST0(pthread_create(&threads[2], NULL, by_group, NULL));
    subject_all_asleep(3);
    subject_wait(NULL);
    for (int i = 3; i >= 0; i--)
        child_tell(children[i]);
    for (int i = 0; i < 3; i++) {
        MUST0(pthread_join(threads[i], NULL));
        EXPECT(statuses[i] == 30 + i, "the child that way %d waits for ended with %d", i, statuses[i]);
    }
    int status;
    EXPECT(wait(&status) > 0 && WEXITSTATUS(status) == 33, "nobody waited for the last child: %#x", status);
    subject_pass();
}
