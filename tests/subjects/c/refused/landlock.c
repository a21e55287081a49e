/* A Landlock ruleset in the making, or by argument one that the process, or a thread of it, is held by: refused by name. */
#include "../subject.h"
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_restrict_self 446
#endif

static volatile bool held, end;

static void hold(int ruleset)
{
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    MUST(syscall(SYS_landlock_restrict_self, ruleset, 0));
    close(ruleset);
    held = true;
}

static void *run(void *ruleset)
{
    hold((int)(intptr_t)ruleset);
    while (!end)
        subject_tick();
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t thread;
    uint64_t handled = 1 << 11; /* LANDLOCK_ACCESS_FS_MAKE_BLOCK */
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0);
    if (ruleset < 0)
        subject_skip("Landlock");
    if (argc > 3 && unshare(CLONE_NEWUSER))
        subject_skip("user namespaces");
    const char *whom = argc > 2 ? argv[2] : "nobody";
    if (strcmp(whom, "process") == 0)
        hold(ruleset);
    else if (strcmp(whom, "thread") == 0) {
        MUST0(pthread_create(&thread, NULL, run, (void *)(intptr_t)ruleset));
        while (!held)
            subject_tick();
    }
    subject_wait(NULL);
    end = true;
    if (strcmp(whom, "thread") == 0)
        MUST0(pthread_join(thread, NULL));
    subject_pass();
}
