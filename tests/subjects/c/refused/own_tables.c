/* A thread with a descriptor table, or a working folder, of its own (unshare), by argument: refused by name. */
#include "../subject.h"
#include <pthread.h>
#include <sched.h>

static volatile bool apart, end;
static int flag = CLONE_FILES;

static void *run(void *argument)
{
    (void)argument;
    MUST(unshare(flag));
    apart = true;
    while (!end)
        subject_tick();
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (argc > 2 && strcmp(argv[2], "folder") == 0)
        flag = CLONE_FS;
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, run, NULL));
    while (!apart)
        subject_tick();
    subject_wait(NULL);
    end = true;
    MUST0(pthread_join(thread, NULL));
    subject_pass();
}
