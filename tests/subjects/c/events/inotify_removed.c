/* inotify whose watched file was removed, one with one-shot and masked watches, and two instances on one folder. */
#include "../subject.h"
#include <sys/inotify.h>

static struct inotify_event *next(int fd)
{
    static union {
        struct inotify_event event;
        char room[4096];
    } buffer;
    return read(fd, &buffer, sizeof buffer) > 0 ? &buffer.event : NULL;
}

static void make(const char *folder, const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", subject_path(folder), name);
    close((int)MUST(open(path, O_CREAT | O_WRONLY, 0600)));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int one = (int)MUST(inotify_init1(IN_NONBLOCK)), two = (int)MUST(inotify_init1(IN_NONBLOCK));
    MUST(mkdir(subject_path("folder"), 0700));
    make("folder", "gone");
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/gone", subject_path("folder"));
    MUST(inotify_add_watch(one, path, IN_ALL_EVENTS));
    int kept = (int)MUST(inotify_add_watch(one, subject_path("folder"), IN_CREATE | IN_ONESHOT));
    int other = (int)MUST(inotify_add_watch(two, subject_path("folder"), IN_CLOSE_WRITE | IN_ONLYDIR | IN_EXCL_UNLINK));
    MUST(unlink(path));
    while (next(one))
        ;
    while (next(two))
        ;
    subject_wait(NULL);
    make("folder", "new");
    struct inotify_event *event = next(one);
    EXPECT(event && event->wd == kept && event->mask == IN_CREATE, "the one-shot watch tells %#x", event ? event->mask : 0);
    event = next(two);
    EXPECT(event && event->wd == other && event->mask == IN_CLOSE_WRITE, "the masked one: %#x", event ? event->mask : 0);
    EXPECT(inotify_rm_watch(one, kept) == -1, "the one-shot watch is still there");
    EXPECT(inotify_add_watch(one, subject_path("folder"), IN_CREATE) > kept, "a watch's number is given out again");
    subject_pass();
}
