/* Children that differ from their parent in everything a fork hands down: limits, mask, folder, nice, name, signals. */
#include "tree.h"
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define COUNT 4

struct facts {
    struct rlimit limit;
    char folder[200], name[20];
    int nice, policy, dumpable;
    mode_t mask;
    sigset_t blocked;
    struct sigaction action;
};

static struct facts facts(void)
{
    struct facts now;
    memset(&now, 0, sizeof now);
    MUST(getrlimit(RLIMIT_NOFILE, &now.limit));
    EXPECT(getcwd(now.folder, sizeof now.folder), "getcwd");
    MUST(prctl(PR_GET_NAME, now.name));
    errno = 0;
    now.nice = getpriority(PRIO_PROCESS, 0);
    now.policy = sched_getscheduler(0);
    now.dumpable = prctl(PR_GET_DUMPABLE);
    now.mask = umask(0);
    umask(now.mask);
    MUST(sigprocmask(SIG_SETMASK, NULL, &now.blocked));
    MUST(sigaction(SIGUSR1, NULL, &now.action));
    return now;
}

static int work(int told, void *argument)
{
    int me = (int)(long)argument;
    char name[20];
    snprintf(name, sizeof name, "child %d", me);
    struct rlimit limit = {100 + (rlim_t)me, 200 + (rlim_t)me};
    MUST(setrlimit(RLIMIT_NOFILE, &limit));
    MUST(chdir(me % 2 ? "/" : "/proc"));
    MUST(prctl(PR_SET_NAME, name));
    MUST(setpriority(PRIO_PROCESS, 0, 3 + me));
    struct sched_param none = {0};
    MUST(sched_setscheduler(0, me % 2 ? SCHED_BATCH : SCHED_OTHER, &none));
    umask((mode_t)(7 * me));
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGRTMIN + me);
    MUST(sigprocmask(SIG_SETMASK, &blocked, NULL));
    MUST(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = me % 2 ? SIG_IGN : SIG_DFL}, NULL));
    struct facts before = facts();
    MUST(prctl(PR_SET_PDEATHSIG, SIGKILL));
    child_wait(told); /* it is asleep here: the parent looks for that */
    struct facts after = facts();
    return (before.limit.rlim_cur != after.limit.rlim_cur || before.limit.rlim_max != after.limit.rlim_max) ? 1
           : strcmp(before.folder, after.folder) ? 2
           : strcmp(before.name, after.name) ? 3
           : before.nice != after.nice ? 4
           : before.policy != after.policy ? 5
           : before.mask != after.mask ? 6
           : memcmp(&before.blocked, &after.blocked, 8) ? 7
           : before.action.sa_handler != after.action.sa_handler || before.action.sa_flags != after.action.sa_flags ? 8
           : before.dumpable != after.dumpable ? 9
                                               : 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct child children[COUNT];
    for (long i = 0; i < COUNT; i++)
        children[i] = child_start(work, (void *)i);
    for (int i = 0; i < COUNT; i++) {
        char path[64], name[32] = "", wanted[20];
        snprintf(path, sizeof path, "/proc/%d/comm", (int)children[i].pid);
        snprintf(wanted, sizeof wanted, "child %d\n", i);
        while (strcmp(name, wanted) != 0 || child_state(children[i].pid) != 'S') {
            FILE *comm = fopen(path, "r");
            EXPECT(fgets(name, sizeof name, comm), "comm");
            fclose(comm);
            subject_tick();
        }
    }
    subject_wait(NULL);
    for (int i = 0; i < COUNT; i++) {
        child_tell(children[i]);
        child_expect_exit(children[i], 0, "a child that compares itself");
    }
    subject_pass();
}
