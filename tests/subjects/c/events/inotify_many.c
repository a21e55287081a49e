/* More inotify descriptors than a user may have twice, one of them with a duplicate and in an epoll. */
#include "../subject.h"
#include <sys/epoll.h>
#include <sys/inotify.h>

#define MANY 70
static int fds[MANY];
static char folder[PATH_MAX];

static void spoil(void)
{
    for (int i = 0; i < MANY; i++)
        inotify_rm_watch(fds[i], 1);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    snprintf(folder, sizeof folder, "%s", subject_path("folder"));
    MUST(mkdir(folder, 0700));
    for (int i = 0; i < MANY; i++) {
        fds[i] = inotify_init1(i % 2 ? IN_CLOEXEC | IN_NONBLOCK : 0);
        if (fds[i] < 0)
            subject_skip("%d inotify descriptors: %s", MANY, strerror(errno));
        EXPECT(inotify_add_watch(fds[i], folder, IN_CREATE) == 1, "the number of the first watch");
    }
    int last = fds[MANY - 1], other = (int)MUST(dup(last)), epoll = (int)MUST(epoll_create1(0));
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 5};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, last, &event));
    subject_wait(spoil);
    EXPECT(epoll_wait(epoll, &event, 1, 0) == 0, "there is news already");
    char path[PATH_MAX + 8], room[4096];
    snprintf(path, sizeof path, "%s/new", folder);
    MUST(close(MUST(open(path, O_CREAT | O_WRONLY, 0600))));
    event.data.u64 = 0;
    EXPECT(epoll_wait(epoll, &event, 1, 5000) == 1 && event.data.u64 == 5, "the epoll does not tell");
    for (int i = 0; i < MANY; i++) {
        EXPECT(fcntl(fds[i], F_GETFD) == (i % 2 ? FD_CLOEXEC : 0), "close-on-exec of the %dth", i);
        EXPECT((fcntl(fds[i], F_GETFL) & O_NONBLOCK) == (i % 2 ? O_NONBLOCK : 0), "flags of the %dth", i);
        MUST(fcntl(fds[i], F_SETFL, O_NONBLOCK));
        EXPECT(read(fds[i], room, sizeof room) > 0, "the %dth is not told: %s", i, strerror(errno));
    }
    EXPECT(read(other, room, sizeof room) == -1 && errno == EAGAIN, "the duplicate is another one");
    unlink(path);
    subject_pass();
}
