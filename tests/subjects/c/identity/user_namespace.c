/*
 * A user namespace of one's own: who is who inside, what may be done there, and who one is outside. By argument:
 * uts: with names for the host; time: with clocks; child: a child's, and another child stays outside; unnamed: nobody is
 * anybody in it; bounded: with few capabilities; threads: with threads; many: with many users (privileged).
 */
#include "../trees/tree.h"
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
#define INSIDE 77

static const char *what;
static char maps[3][300];
static pid_t tids[2];
static volatile bool go;
static ino_t outside;
static struct __user_cap_data_struct rights[2];

static bool is(const char *name)
{
    return strcmp(what, name) == 0;
}

static ino_t number_of(const char *path)
{
    struct stat found;
    return stat(path, &found) ? 0 : found.st_ino;
}

static void write_to(const char *path, const char *text)
{
    int fd = (int)MUST(open(path, O_WRONLY));
    MUST(write(fd, text, strlen(text)));
    close(fd);
}

static void read_from(const char *path, char *text)
{
    int fd = (int)MUST(open(path, O_RDONLY));
    ssize_t length = MUST(read(fd, text, 299));
    text[length] = 0;
    close(fd);
}

static void look(char (*found)[300])
{
    read_from("/proc/self/uid_map", found[0]);
    read_from("/proc/self/gid_map", found[1]);
    read_from("/proc/self/setgroups", found[2]);
}

static void capabilities(struct __user_cap_data_struct *found)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    MUST(syscall(SYS_capget, &header, found));
}

/* Many users: somebody outside has to say who they are. */
static void let_be_many(void)
{
    char path[64];
    int told[2];
    char byte;
    MUST(pipe(told));
    pid_t maker = (pid_t)MUST(fork());
    if (maker == 0) {
        pid_t parent = getppid();
        close(told[1]);
        MUST(read(told[0], &byte, 1));
        snprintf(path, sizeof path, "/proc/%d/uid_map", (int)parent);
        write_to(path, "0 100000 1000\n1000 0 1\n");
        snprintf(path, sizeof path, "/proc/%d/gid_map", (int)parent);
        write_to(path, "0 0 1\n1 200000 5\n");
        _exit(0);
    }
    MUST(unshare(CLONE_NEWUSER));
    MUST(write(told[1], "x", 1));
    MUST(waitpid(maker, NULL, 0));
    close(told[0]), close(told[1]);
    MUST(setresuid(1000, 1000, 7));
}

static void begin_one(void)
{
    char text[64];
    uid_t user = geteuid();
    gid_t group = getegid();
    int more = is("uts") ? CLONE_NEWUTS : is("time") ? CLONE_NEWTIME : 0;
    if (is("many")) {
        let_be_many();
        return;
    }
    if (unshare(CLONE_NEWUSER | more))
        subject_skip("user namespaces");
    if (!is("unnamed")) {
        write_to("/proc/self/setgroups", "deny");
        snprintf(text, sizeof text, "%d %d 1", is("child") || is("bounded") ? 0 : INSIDE, (int)user);
        write_to("/proc/self/uid_map", text);
        snprintf(text, sizeof text, "0 %d 1", (int)group);
        write_to("/proc/self/gid_map", text);
    }
    if (is("uts"))
        MUST(sethostname("of-a-user", 9));
    if (is("time")) {
        write_to("/proc/self/timens_offsets", "monotonic 5000000 0");
        int fd = (int)MUST(open("/proc/self/ns/time_for_children", O_RDONLY));
        MUST(setns(fd, CLONE_NEWTIME));
        close(fd);
    }
    if (is("bounded")) {
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct few[2] = {{1 << CAP_SYS_CHROOT | 1 << CAP_KILL, 1 << CAP_SYS_CHROOT | 1 << CAP_KILL, 0}};
        MUST(prctl(PR_CAPBSET_DROP, CAP_SYS_NICE, 0, 0, 0));
        MUST(syscall(SYS_capset, &header, few));
    }
}

static void check(const char *when)
{
    char now[3][300];
    struct __user_cap_data_struct found[2];
    look(now);
    for (int i = 0; i < (is("unnamed") ? 2 : 3); i++) /* without groups, none can be set */
        EXPECT(strcmp(now[i], maps[i]) == 0, "%s: it says %s", when, now[i]);
    capabilities(found);
    EXPECT(memcmp(found, rights, sizeof rights) == 0, "%s: capabilities %x %x", when, found[0].effective,
           found[0].permitted);
    EXPECT(number_of("/proc/self/ns/user") != outside, "%s: it is outside", when);
    uid_t user = is("unnamed") ? 65534 : is("child") || is("bounded") ? 0 : is("many") ? 1000 : INSIDE;
    EXPECT(geteuid() == user && getegid() == (is("unnamed") ? 65534 : 0), "%s: user %d, group %d", when, (int)geteuid(),
           (int)getegid());
    if (is("many")) {
        uid_t ids[3];
        MUST(getresuid(ids, ids + 1, ids + 2));
        EXPECT(ids[0] == 1000 && ids[2] == 7, "%s: user %d, formerly %d", when, (int)ids[0], (int)ids[2]);
    }
    if (is("uts")) {
        struct utsname names;
        MUST(uname(&names));
        EXPECT(strcmp(names.nodename, "of-a-user") == 0, "%s: the host is %s", when, names.nodename);
        MUST(sethostname("of-a-user", 9));
    }
    if (is("time")) {
        struct timespec clock;
        MUST(clock_gettime(CLOCK_MONOTONIC, &clock));
        EXPECT(clock.tv_sec > 5000000, "%s: the clock shows %ld s", when, (long)clock.tv_sec);
    }
    if (is("bounded"))
        EXPECT(prctl(PR_CAPBSET_READ, CAP_SYS_NICE) == 0 && prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN) == 1, "%s: bounds",
               when);
}

static void *run(void *argument)
{
    pid_t *tid = argument;
    for (*tid = (pid_t)syscall(SYS_gettid); !go;)
        subject_tick();
    EXPECT(*tid == (pid_t)syscall(SYS_gettid), "a thread is %d, was %d", (int)syscall(SYS_gettid), (int)*tid);
    capabilities(rights);
    return NULL;
}

static bool is_as_parent(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/user", (int)getppid());
    return number_of(path) == number_of("/proc/self/ns/user");
}

static int stays(int told, void *argument)
{
    (void)argument;
    child_wait(told);
    return is_as_parent() ? 3 : 4;
}

static int ready[2];

static int inside(int told, void *argument)
{
    bool begins = argument == NULL;
    struct child below = {0};
    if (begins) {
        begin_one();
        look(maps);
        capabilities(rights);
        below = child_start(inside, &below);
    }
    MUST(write(ready[1], "x", 1));
    child_wait(told);
    check(begins ? "a child" : "a grandchild");
    EXPECT(is_as_parent() == !begins, "%s is elsewhere", begins ? "a child" : "a grandchild");
    if (begins) {
        child_tell(below);
        child_expect_exit(below, 3, "the grandchild");
    }
    return 3;
}

int main(int argc, char **argv)
{
    char byte;
    subject_begin(argc, argv);
    what = argc > 2 ? argv[2] : "";
    outside = number_of("/proc/self/ns/user");
    if (is("child")) {
        MUST(pipe(ready));
        struct child other = child_start(stays, NULL), child = child_start(inside, NULL);
        for (int i = 0; i < 2; i++)
            MUST(read(ready[0], &byte, 1));
        subject_wait(NULL);
        child_tell(other);
        child_tell(child);
        child_expect_exit(other, 3, "the child outside");
        child_expect_exit(child, 3, "the child inside");
        subject_pass();
    }
    begin_one();
    look(maps);
    capabilities(rights);
    pthread_t threads[2];
    for (int i = 0; i < 2 && is("threads"); i++) {
        MUST0(pthread_create(threads + i, NULL, run, tids + i));
        while (!*(volatile pid_t *)(tids + i))
            subject_tick();
    }
    check("before");
    subject_wait(NULL);
    check("afterwards");
    go = true;
    for (int i = 0; i < 2 && is("threads"); i++)
        MUST0(pthread_join(threads[i], NULL));
    subject_pass();
}
