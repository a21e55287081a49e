/* Two threads that share a descriptor table, or folders, with each other only (unshare), by argument: refused by name. */
#include "../subject.h"
#include <pthread.h>
#include <sched.h>

static volatile int apart;
static volatile bool end;
static int flag = CLONE_FILES;

static void *run(void *first)
{
    pthread_t other;
    if (first) {
        MUST(unshare(flag));
        MUST0(pthread_create(&other, NULL, run, NULL));
    }
    __atomic_add_fetch(&apart, 1, __ATOMIC_SEQ_CST);
    while (!end)
        subject_tick();
    if (first)
        MUST0(pthread_join(other, NULL));
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (argc > 2 && strcmp(argv[2], "folder") == 0)
        flag = CLONE_FS;
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, run, ""));
    while (apart < 2)
        subject_tick();
    subject_wait(NULL);
    end = true;
    MUST0(pthread_join(thread, NULL));
    subject_pass();
}
