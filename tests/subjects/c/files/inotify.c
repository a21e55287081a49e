/* Watches with the same numbers that tell of events afterwards, and of none of the restore's own doing. */
#include "../subject.h"
#include <sys/inotify.h>

static int fd, watches[2];
static void spoil(void) { inotify_rm_watch(fd, watches[1]); }

static struct inotify_event *next(void)
{
    static char buffer[4096] __attribute__((aligned(8)));
    return read(fd, buffer, sizeof buffer) > 0 ? (struct inotify_event *)buffer : NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    fd = (int)MUST(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    MUST(mkdir(subject_path("one"), 0700));
    MUST(mkdir(subject_path("two"), 0700));
    int dropped = (int)MUST(inotify_add_watch(fd, subject_path("one"), IN_CREATE));
    MUST(inotify_rm_watch(fd, dropped));
    watches[0] = (int)MUST(inotify_add_watch(fd, subject_path("one"), IN_CREATE | IN_DELETE | IN_CLOSE));
    watches[1] = (int)MUST(inotify_add_watch(fd, subject_path("two"), IN_CREATE));
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/open", subject_path("one"));
    MUST(open(path, O_CREAT | O_RDWR, 0600));
    MUST(open(subject_path("one/gone"), O_CREAT | O_RDWR, 0600));
    MUST(unlink(subject_path("one/gone")));
    int once = (int)MUST(inotify_add_watch(fd, path, IN_ALL_EVENTS | IN_ONESHOT));
    while (next())
        ;
    subject_wait(spoil);
    EXPECT(!next(), "an event came by itself");
    close((int)MUST(open(path, O_RDONLY)));
    struct inotify_event *opened = next();
    EXPECT(opened && opened->wd == once && opened->mask == IN_OPEN, "what is open is not watched any more");
    snprintf(path, sizeof path, "%s/new", subject_path("two"));
    close((int)MUST(open(path, O_CREAT | O_WRONLY, 0600)));
    struct inotify_event *event = next();
    EXPECT(event, "no event");
    EXPECT(event->wd == watches[1] && event->mask == IN_CREATE && !strcmp(event->name, "new"), "event %#x of watch %d",
           event->mask, event->wd);
    EXPECT(fcntl(fd, F_GETFL) & O_NONBLOCK, "O_NONBLOCK is lost");
    subject_pass();
}
