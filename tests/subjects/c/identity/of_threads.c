/*
 * Threads that are somebody else than their process, by raw system calls: one that may gain no privileges; with "all"
 * (privileged) also with another user for the file system, with another user and groups, without a capability.
 */
#include "../subject.h"
#include <grp.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* Not CapBnd of an ordinary user, whose fresh tree may be in a user namespace, where the bounding set is another. */
#define LINES "Uid: Gid: Groups: CapInh: CapPrm: CapEff: CapBnd: CapAmb: NoNewPrivs:"
enum { FEWER_PRIVILEGES, FILE_SYSTEM, ANOTHER_USER, LESS_ABLE, SORTS };

static volatile bool apart[SORTS], end;

/* What /proc tells of the rights of the calling thread. */
static void rights(char *room, size_t size)
{
    char line[512];
    size_t at = 0;
    FILE *status = fopen("/proc/thread-self/status", "r");
    while (status && fgets(line, sizeof line, status)) {
        char key[32];
        if (sscanf(line, "%31s", key) == 1 && strstr(LINES, key) && (geteuid() == 0 || strcmp(key, "CapBnd:")))
            at += (size_t)snprintf(room + at, size - at, "%s", line);
    }
    fclose(status);
    snprintf(room + at, size - at, "securebits %d", prctl(PR_GET_SECUREBITS));
}

static void become(long sort)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct caps[2];
    gid_t groups[] = {31, 32};
    switch (sort) {
    case FEWER_PRIVILEGES:
        MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        break;
    case FILE_SYSTEM:
        syscall(SYS_setfsuid, 4321);
        break;
    case ANOTHER_USER:
        MUST(syscall(SYS_setgroups, 2, groups));
        MUST(syscall(SYS_setresgid, 21, 22, 23));
        MUST(syscall(SYS_setresuid, 11, 12, 0));
        break;
    default:
        MUST(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0));
        MUST(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
        MUST(syscall(SYS_capget, &header, caps));
        caps[0].effective &= ~(1u << CAP_CHOWN);
        caps[0].inheritable |= 1u << CAP_KILL;
        MUST(syscall(SYS_capset, &header, caps));
    }
}

static void *run(void *argument)
{
    long sort = (long)argument;
    char before[2000], after[2000];
    become(sort);
    rights(before, sizeof before);
    apart[sort] = true;
    while (!end)
        subject_tick();
    rights(after, sizeof after);
    return strcmp(before, after) ? strdup(after) : NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    long sorts = argc > 2 ? SORTS : 1;
    pthread_t threads[SORTS];
    char before[2000], after[2000], *other;
    for (long i = 0; i < sorts; i++)
        MUST0(pthread_create(&threads[i], NULL, run, (void *)i));
    for (long i = 0; i < sorts; i++)
        while (!apart[i])
            subject_tick();
    rights(before, sizeof before);
    subject_wait(NULL);
    rights(after, sizeof after);
    EXPECT(strcmp(before, after) == 0, "%s became %s", before, after);
    end = true;
    for (long i = 0; i < sorts; i++) {
        MUST0(pthread_join(threads[i], (void **)&other));
        EXPECT(!other, "thread %ld: %s", i, other);
    }
    subject_pass();
}
