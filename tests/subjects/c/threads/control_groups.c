/* A thread in other control groups than its process (privileged): a threaded one of version 2, and tasks of version 1. */
#include "../subject.h"
#include <pthread.h>
#include <sys/syscall.h>

#define MOST 2
static char folders[MOST][3100];
static int made;
static volatile bool joined, end, lost;

/* A group of our own in the first hierarchy that is mounted as `sort`; other than cpuset, which needs to be set up. */
static void make(const char *sort, const char *kind)
{
    char line[2 * PATH_MAX], place[PATH_MAX], type[64], options[512];
    FILE *mounts = fopen("/proc/self/mountinfo", "r");
    while (mounts && made < MOST && fgets(line, sizeof line, mounts)) {
        char *other = strstr(line, " - ");
        if (!other || sscanf(line, "%*s %*s %*s / %s", place) != 1 || sscanf(other, " - %63s %*s %511s", type, options) != 2)
            continue;
        if (strcmp(type, sort) || strstr(options, "cpuset") || strstr(options, "name="))
            continue;
        char file[3200];
        snprintf(folders[made], sizeof folders[made], "%.3000s/nbcr-test-%d", place, (int)getpid());
        if (mkdir(folders[made], 0755))
            continue;
        snprintf(file, sizeof file, "%.3100s/cgroup.type", folders[made]);
        int fd = kind ? open(file, O_WRONLY) : -1;
        if (kind && (fd < 0 || write(fd, kind, strlen(kind)) < 0))
            rmdir(folders[made]);
        else
            made++;
        if (fd >= 0)
            close(fd);
        break;
    }
    if (mounts)
        fclose(mounts);
}

static void groups(char *room, size_t size)
{
    int fd = open("/proc/thread-self/cgroup", O_RDONLY);
    ssize_t got = read(fd, room, size - 1);
    room[got > 0 ? got : 0] = 0;
    close(fd);
}

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
