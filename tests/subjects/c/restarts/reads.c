/* Threads blocked in reading: a pipe by readv, an eventfd, a timerfd, a signalfd, an inotify, a terminal, a FIFO. */
#include "blocked.h"
#include <pty.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <termios.h>

static int pipe_ends[2], event, timer, signals, watch, master, slave, fifo;
static char text[8][300];

static long by_readv(void) { return readv(pipe_ends[0], &(struct iovec){text[0], 100}, 1); }
static void wake_readv(void) { MUST(write(pipe_ends[1], "abc", 3)); }
static long by_eventfd(void) { return read(event, text[1], 8); }
static void wake_eventfd(void) { MUST(eventfd_write(event, 5)); }
static long by_timerfd(void) { return read(timer, text[2], 8); }
static void wake_timerfd(void)
{
    struct itimerspec soon = {.it_value.tv_nsec = 1000};
    MUST(timerfd_settime(timer, 0, &soon, NULL));
}
static long by_signalfd(void) { return read(signals, text[3], sizeof text[3]); }
static void wake_signalfd(void) { MUST(kill(getpid(), SIGUSR2)); }
static long by_inotify(void) { return read(watch, text[4], sizeof text[4]) > 0; }
static void wake_inotify(void)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/new", subject_path("folder"));
    close((int)MUST(open(path, O_CREAT | O_WRONLY, 0600)));
}
static long by_terminal(void) { return read(slave, text[5], 100); }
static void wake_terminal(void) { MUST(write(master, "line\n", 5)); }
static long by_fifo(void) { return read(fifo, text[6], 100); }
static void wake_fifo(void) { MUST(write(fifo, "fifo", 4)); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    MUST(mkdir(subject_path("folder"), 0700));
    MUST(mkfifo(subject_path("fifo"), 0600));
    MUST(pipe(pipe_ends));
    event = (int)MUST(eventfd(0, 0));
    timer = (int)MUST(timerfd_create(CLOCK_MONOTONIC, 0));
    signals = (int)MUST(signalfd(-1, &set, 0));
    watch = (int)MUST(inotify_init1(0));
    MUST(inotify_add_watch(watch, subject_path("folder"), IN_CREATE));
    MUST(openpty(&master, &slave, NULL, NULL, NULL));
    fifo = (int)MUST(open(subject_path("fifo"), O_RDWR));
    struct blocked all[] = {
        WAITS("readv of a pipe", readv, 3),      WAITS("read of an eventfd", eventfd, 8),
        WAITS("read of a timerfd", timerfd, 8),  WAITS("read of a signalfd", signalfd, 128),
        WAITS("read of an inotify", inotify, 1), WAITS("read of a terminal", terminal, 5),
        WAITS("read of a FIFO", fifo, 4)};
    BLOCKED_THROUGH(all);
    EXPECT(!memcmp(text[0], "abc", 3) && text[1][0] == 5 && !memcmp(text[5], "line\n", 5), "what was read");
    subject_pass();
}
