/*
 * A fanotify group that tells of events afterwards, and of none of the restore's own doing. user: what any user may have;
 * root: marks of a mount and a file system, descriptors with events; mounts: marks of a mount namespace.
 */
#include "../subject.h"
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#ifndef FAN_REPORT_TARGET_FID
#define FAN_REPORT_TARGET_FID 0x1000
#endif
#define REPORT_MNT 0x4000
#define MARK_MNTNS 0x110
#define MARK_EVICTABLE 0x200
#define MARK_IGNORE 0x400

static int fd;
static char before[4096];
static void spoil(void) { fanotify_mark(fd, FAN_MARK_FLUSH, 0, AT_FDCWD, "/"); }

/* What /proc shows of the group, the marks sorted. */
static void look(char *to)
{
    char path[64], lines[32][256];
    int count = 0;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    FILE *stream = fopen(path, "r");
    while (count < 32 && fgets(lines[count], sizeof lines[0], stream))
        if (strncmp(lines[count], "fanotify", 8) == 0)
            count++;
    fclose(stream);
    qsort(lines, (size_t)count, sizeof lines[0], (int (*)(const void *, const void *))strcmp);
    for (*to = 0; count--;)
        strcat(to, lines[count]);
}

static struct fanotify_event_metadata *next(void)
{
    static char buffer[4096] __attribute__((aligned(8)));
    return read(fd, buffer, sizeof buffer) > 0 ? (struct fanotify_event_metadata *)buffer : NULL;
}

static void user(const char *folder, const char *file)
{
    fd = fanotify_init(FAN_REPORT_DFID_NAME | FAN_REPORT_TARGET_FID | FAN_NONBLOCK | FAN_CLOEXEC | FAN_REPORT_FID, 0);
    if (fd < 0)
        subject_skip("fanotify with handles of files: %s", strerror(errno));
    MUST(fanotify_mark(fd, FAN_MARK_ADD, FAN_CREATE | FAN_DELETE | FAN_ONDIR | FAN_EVENT_ON_CHILD, AT_FDCWD, folder));
    MUST(fanotify_mark(fd, FAN_MARK_ADD, FAN_MODIFY | FAN_CLOSE_WRITE, AT_FDCWD, file));
    int ignoring = FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY;
    MUST(fanotify_mark(fd, (unsigned)ignoring, FAN_CLOSE_WRITE, AT_FDCWD, file));
    MUST(fanotify_mark(fd, FAN_MARK_ADD | MARK_EVICTABLE, FAN_ATTRIB, AT_FDCWD, subject_path("kept")));
}

static void root(const char *folder, const char *file)
{
    fd = fanotify_init(FAN_CLASS_CONTENT | FAN_UNLIMITED_MARKS | FAN_NONBLOCK | FAN_REPORT_TID,
                       O_RDONLY | O_CLOEXEC | O_NOATIME);
    if (fd < 0)
        subject_skip("fanotify (CAP_SYS_ADMIN)");
    MUST(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_MODIFY, AT_FDCWD, "/sys"));
    MUST(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_MODIFY, AT_FDCWD, "/sys"));
    MUST(fanotify_mark(fd, FAN_MARK_ADD, FAN_CLOSE_WRITE | FAN_EVENT_ON_CHILD, AT_FDCWD, folder));
    MUST(fanotify_mark(fd, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, file));
    int ignoring = FAN_MARK_ADD | MARK_IGNORE | FAN_MARK_IGNORED_SURV_MODIFY;
    MUST(fanotify_mark(fd, (unsigned)ignoring, FAN_OPEN | FAN_EVENT_ON_CHILD, AT_FDCWD, folder));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *kind = argc > 2 ? argv[2] : "user";
    char folder[PATH_MAX], file[PATH_MAX], inside[PATH_MAX + 8], after[4096];
    snprintf(folder, sizeof folder, "%s", subject_path("folder"));
    snprintf(file, sizeof file, "%s", subject_path("file"));
    snprintf(inside, sizeof inside, "%s/new", folder);
    MUST(mkdir(folder, 0700));
    int open_file = (int)MUST(open(file, O_CREAT | O_RDWR, 0600));
    MUST(open(subject_path("kept"), O_CREAT | O_RDWR, 0600));
    if (strcmp(kind, "user") == 0)
        user(folder, file);
    else if (strcmp(kind, "root") == 0)
        root(folder, file);
    else {
        fd = fanotify_init(REPORT_MNT | FAN_NONBLOCK, 0);
        if (fd < 0)
            subject_skip("fanotify of mounts (Linux 6.14)");
        MUST(fanotify_mark(fd, FAN_MARK_ADD | MARK_MNTNS, 0x1000000 | 0x2000000, AT_FDCWD, "/proc/self/ns/mnt"));
    }
    look(before);
    subject_wait(spoil);
    look(after);
    EXPECT(strcmp(before, after) == 0, "marks: %s instead of %s", after, before);
    EXPECT(fcntl(fd, F_GETFL) & O_NONBLOCK, "O_NONBLOCK is lost");
    EXPECT(!next(), "an event came by itself");
    if (strcmp(kind, "mounts") == 0)
        subject_pass();
    MUST(write(open_file, "x", 1));
    struct fanotify_event_metadata *event = next();
    EXPECT(event && event->mask == FAN_MODIFY, "the file's change is not told: %llx", event ? event->mask : 0);
    if (strcmp(kind, "root") == 0) {
        EXPECT((fcntl(event->fd, F_GETFL) & (O_ACCMODE | O_NOATIME)) == O_NOATIME, "the descriptor's flags");
        EXPECT(fcntl(event->fd, F_GETFD) == FD_CLOEXEC && event->pid == getpid(), "close-on-exec, or who did it");
    }
    int child = fork();
    if (child == 0)
        _exit(close(open(inside, O_CREAT | O_WRONLY, 0600)));
    event = next();
    for (int tries = 0; !event && tries < 5000; tries++, subject_tick())
        event = next();
    EXPECT(event, "nothing is told of the folder");
    if (strcmp(kind, "user") == 0)
        EXPECT(event->mask == FAN_CREATE && (event->pid != 0) == (geteuid() == 0), "%llx of %d", event->mask, event->pid);
    else
        EXPECT(event->mask == FAN_CLOSE_WRITE && event->pid == child, "%llx of %d", event->mask, event->pid);
    subject_pass();
}
