/* A thread in other control groups than its process (privileged): a threaded one of version 2, and tasks of version 1. */
#include "../control_groups.h"
#include <pthread.h>
#include <sys/syscall.h>

static volatile bool joined, end, lost;

static void *run(void *argument)
{
    static char before[8192], after[8192];
    for (int i = 0; i < made; i++) {
        char file[3200], number[32];
        int length = snprintf(number, sizeof number, "%ld", (long)syscall(SYS_gettid));
        snprintf(file, sizeof file, "%.3100s/cgroup.threads", folders[i]);
        int fd = open(file, O_WRONLY);
        if (fd < 0) {
            snprintf(file, sizeof file, "%.3100s/tasks", folders[i]);
            fd = open(file, O_WRONLY);
        }
        lost |= write(fd, number, (size_t)length) != length;
        close(fd);
    }
    groups(before, sizeof before);
    joined = true;
    while (!end)
        subject_tick();
    groups(after, sizeof after);
    EXPECT(strcmp(before, after) == 0, "the thread's %s is now %s", before, after);
    return argument;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char before[8192], after[8192];
    make("cgroup2", "threaded");
    make("cgroup", NULL);
    if (!made)
        subject_skip("a control group of its own: %s", strerror(errno));
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, run, NULL));
    while (!joined)
        subject_tick();
    groups(before, sizeof before);
    if (!lost)
        subject_wait(NULL);
    end = true;
    MUST0(pthread_join(thread, NULL));
    for (int i = 0; i < made; i++)
        rmdir(folders[i]);
    if (lost)
        subject_skip("to join a control group");
    groups(after, sizeof after);
    EXPECT(strcmp(before, after) == 0, "%s is now %s", before, after);
    subject_pass();
}
