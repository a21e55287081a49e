/*
 * Processes in several UTS namespaces: one that a child and its child share, one of a child's own, one from which a
 * grandchild has gone back to the root's. argv[2] "root": the root is in one of its own, and its first child is not.
 */
#include "tree.h"
#include <sched.h>
#include <sys/utsname.h>

#define SAY(condition, number)                                                                                        \
    if (!(condition))                                                                                                 \
    _exit(number)

static int home; /* the root's */
static struct utsname first;
static int ready[2];

static ino_t number_of(const char *path)
{
    struct stat found;
    return stat(path, &found) ? 0 : found.st_ino;
}

static bool is_called(const char *host, const char *domain)
{
    struct utsname names;
    return uname(&names) == 0 && strcmp(names.nodename, host) == 0 && strcmp(names.domainname, domain) == 0;
}

static void be_ready(void)
{
    SAY(write(ready[1], "x", 1) == 1, 10);
}

static void begin_one(const char *host, const char *domain)
{
    SAY(unshare(CLONE_NEWUTS) == 0, 77);
    SAY(sethostname(host, strlen(host)) == 0 && setdomainname(domain, strlen(domain)) == 0, 11);
}

/* In the namespace of its parent, whose names change while it looks. */
static int shares(int told, void *argument)
{
    (void)argument;
    be_ready();
    child_wait(told);
    SAY(is_called("renamed", "of.both"), 20);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/uts", (int)getppid());
    SAY(number_of(path) == number_of("/proc/self/ns/uts"), 21);
    return 5;
}

static int begins_and_shares(int told, void *argument)
{
    struct stat own;
    int status;
    close(home);
    begin_one("of-both", "of.both");
    int fd = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
    struct child below = child_start(shares, argument);
    be_ready();
    child_wait(told);
    SAY(is_called("of-both", "of.both"), 12);
    SAY(fstat(fd, &own) == 0 && own.st_ino == number_of("/proc/self/ns/uts"), 13);
    SAY(sethostname("renamed", 7) == 0, 14);
    child_tell(below);
    SAY(waitpid(below.pid, &status, 0) == below.pid && WIFEXITED(status) && WEXITSTATUS(status) == 5, 15);
    return 3;
}

static int returns(int told, void *argument)
{
    (void)argument;
    SAY(setns(home, CLONE_NEWUTS) == 0, 16);
    close(home);
    be_ready();
    child_wait(told);
    SAY(is_called(first.nodename, first.domainname), 17);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/uts", (int)subject_root);
    SAY(number_of(path) == number_of("/proc/self/ns/uts"), 18);
    return 5;
}

static int begins(int told, void *argument)
{
    int status;
    begin_one("alone", "");
    struct child below = child_start(returns, argument);
    close(home);
    be_ready();
    child_wait(told);
    SAY(is_called("alone", ""), 19);
    child_tell(below);
    SAY(waitpid(below.pid, &status, 0) == below.pid && WIFEXITED(status) && WEXITSTATUS(status) == 5, 22);
    return 3;
}

static int stays(int told, void *argument)
{
    struct utsname *before = argument;
    be_ready();
    child_wait(told);
    SAY(is_called(before->nodename, before->domainname), 23);
    return 3;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct child outside = {0};
    struct utsname outer;
    char byte;
    bool moves = argc > 2;
    int processes = 4;
    MUST(uname(&outer));
    MUST(pipe(ready));
    if (moves) {
        outside = child_start(stays, &outer);
        processes++;
        if (unshare(CLONE_NEWUTS))
            subject_skip("namespaces (CAP_SYS_ADMIN)");
        MUST(sethostname("of-the-root", 11));
    }
    MUST(uname(&first));
    home = (int)MUST(open("/proc/self/ns/uts", O_RDONLY));
    struct child both = child_start(begins_and_shares, NULL), alone = child_start(begins, NULL);
    close(home);
    for (int i = 0; i < processes; i++)
        MUST(read(ready[0], &byte, 1));
    subject_wait(NULL);
    EXPECT(is_called(first.nodename, first.domainname), "the root's names are others");
    child_tell(both);
    child_tell(alone);
    child_expect_exit(both, 3, "the child that shares a namespace");
    child_expect_exit(alone, 3, "the child in one of its own");
    if (moves) {
        child_tell(outside);
        child_expect_exit(outside, 3, "the child outside");
    }
    EXPECT(is_called(first.nodename, first.domainname), "the root's names have changed");
    subject_pass();
}
