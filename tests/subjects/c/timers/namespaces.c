/*
 * Clocks of one's own (time namespaces; privileged): the root starts its children in one, of which one starts its own in
 * another, and one has a thread, timers and a sleep. argv[2] "root": the root is in one itself, all of it is.
 */
#include "../trees/tree.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/timerfd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

#define SAY(condition, number)                                                                                        \
    if (!(condition))                                                                                                 \
    _exit(number)
#define AHEAD 1000000L /* seconds, of the first namespace; the second one is twice as far */
#define NEAR 50000L

static int ready[2];
static struct timespec began[2]; /* of the host's clocks */
static volatile bool go, runs;

static ino_t number_of(const char *path)
{
    struct stat found;
    return stat(path, &found) ? 0 : found.st_ino;
}

static bool is_apart(void)
{
    return number_of("/proc/self/ns/time") != number_of("/proc/self/ns/time_for_children");
}

static bool is_ahead(long by)
{
    struct timespec now[2];
    clock_gettime(CLOCK_MONOTONIC, now);
    clock_gettime(CLOCK_BOOTTIME, now + 1);
    long monotonic = now[0].tv_sec - began[0].tv_sec - by, boot = now[1].tv_sec - began[1].tv_sec - by - 7;
    return monotonic >= -1 && monotonic < NEAR && boot >= (by ? -1 : -8) && boot < NEAR;
}

static void ask_for_one(long ahead)
{
    char text[100];
    SAY(unshare(CLONE_NEWTIME) == 0, 77);
    int fd = open("/proc/self/timens_offsets", O_WRONLY);
    int length = snprintf(text, sizeof text, "monotonic %ld 5\nboottime %ld 6\n", ahead, ahead + 7);
    SAY(fd >= 0 && write(fd, text, (size_t)length) == length, 40);
    close(fd);
}

static void be_ready(void)
{
    SAY(write(ready[1], "x", 1) == 1, 10);
}

static int innermost(int told, void *argument)
{
    (void)argument;
    be_ready();
    child_wait(told);
    SAY(is_ahead(2 * AHEAD), 11);
    SAY(!is_apart(), 12);
    return 5;
}

static int starts_one(int told, void *argument)
{
    int status;
    ask_for_one(2 * AHEAD);
    struct child below = child_start(innermost, argument);
    be_ready();
    child_wait(told);
    SAY(is_ahead(AHEAD), 13);
    SAY(is_apart(), 14);
    child_tell(below);
    SAY(waitpid(below.pid, &status, 0) == below.pid && WIFEXITED(status) && WEXITSTATUS(status) == 5, 15);
    return 3;
}

static void *look(void *argument)
{
    for (runs = true; !go;)
        subject_tick();
    SAY(is_ahead(AHEAD), 16);
    return argument;
}

static int has_timers(int told, void *argument)
{
    (void)argument;
    struct itimerspec soon = {.it_value = {30, 0}, .it_interval = {30, 0}}, left;
    struct itimerspec moment = {.it_interval = {30, 0}};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_t timer, rung;
    pthread_t thread;
    sigset_t set;
    siginfo_t info;
    struct timespec now;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    clock_gettime(CLOCK_MONOTONIC, &now);
    moment.it_value = (struct timespec){now.tv_sec + 30, 0};
    SAY(timerfd_settime(fd, TFD_TIMER_ABSTIME, &moment, NULL) == 0, 17);
    SAY(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &soon, NULL) == 0, 18);
    event.sigev_value.sival_int = 9;
    moment.it_value = now; /* it rings at once, and its signal waits */
    SAY(timer_create(CLOCK_MONOTONIC, &event, &rung) == 0, 19);
    SAY(timer_settime(rung, TIMER_ABSTIME, &moment, NULL) == 0, 20);
    SAY(pthread_create(&thread, NULL, look, NULL) == 0, 21);
    while (!runs)
        subject_tick();
    be_ready();
    child_wait(told);
    SAY(timer_gettime(timer, &left) == 0 && left.it_value.tv_sec < 31, 22);
    SAY(timerfd_gettime(fd, &left) == 0 && left.it_value.tv_sec < 31, 23);
    SAY(sigwaitinfo(&set, &info) == SIGUSR1 && info.si_value.sival_int == 9 && info.si_overrun < 1000, 24);
    SAY(timer_gettime(rung, &left) == 0 && left.it_value.tv_sec < 31, 25);
    go = true;
    SAY(pthread_join(thread, NULL) == 0, 26);
    SAY(!is_apart(), 27);
    return is_ahead(AHEAD) ? 3 : 28;
}

static int is_new(int told, void *argument)
{
    (void)argument;
    (void)told;
    return is_ahead(AHEAD) ? 3 : 4;
}

int main(int argc, char **argv)
{
    char byte;
    bool inside = argc > 2;
    subject_begin(argc, argv);
    clock_gettime(CLOCK_MONOTONIC, began);
    clock_gettime(CLOCK_BOOTTIME, began + 1);
    MUST(pipe(ready));
    if (geteuid())
        subject_skip("time namespaces (CAP_SYS_ADMIN)");
    ask_for_one(AHEAD);
    if (inside) {
        int fd = (int)MUST(open("/proc/self/ns/time_for_children", O_RDONLY));
        MUST(setns(fd, CLONE_NEWTIME));
        close(fd);
    }
    struct child timers = child_start(has_timers, NULL), starts = child_start(starts_one, NULL);
    for (int i = 0; i < 3; i++)
        MUST(read(ready[0], &byte, 1));
    subject_wait(NULL);
    EXPECT(is_ahead(inside ? AHEAD : 0), "the clocks of the root are others");
    EXPECT(is_apart() == !inside, "the root starts its children elsewhere");
    child_tell(timers);
    child_tell(starts);
    child_expect_exit(timers, 3, "the child with timers");
    child_expect_exit(starts, 3, "the child that starts one of its own");
    child_expect_exit(child_start(is_new, NULL), 3, "a new child");
    subject_pass();
}
