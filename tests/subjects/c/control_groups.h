/* Control groups of a subject's own, in the hierarchies that the host has. */
#include "subject.h"

#define MOST 2
static char folders[MOST][3100];
static int made;

/* Whether a new group becomes of this kind (cgroup.type), where one is asked for. */
static bool set_kind(const char *folder, const char *kind)
{
    char file[3200];
    if (!kind)
        return true;
    snprintf(file, sizeof file, "%.3100s/cgroup.type", folder);
    int fd = open(file, O_WRONLY);
    bool done = fd >= 0 && write(fd, kind, strlen(kind)) >= 0;
    if (fd >= 0)
        close(fd);
    return done;
}

/* A group in the first hierarchy that is mounted as `sort`; other than cpuset, which needs to be set up. */
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
        snprintf(folders[made], sizeof folders[made], "%.3000s/nbcr-test-%d", place, (int)getpid());
        if (mkdir(folders[made], 0755))
            continue;
        if (set_kind(folders[made], kind))
            made++;
        else
            rmdir(folders[made]);
        break;
    }
    if (mounts)
        fclose(mounts);
}

/* In which ones the calling thread is. */
static void groups(char *room, size_t size)
{
    int fd = open("/proc/thread-self/cgroup", O_RDONLY);
    ssize_t got = read(fd, room, size - 1);
    room[got > 0 ? got : 0] = 0;
    close(fd);
}
