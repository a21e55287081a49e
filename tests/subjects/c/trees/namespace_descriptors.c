/*
 * Namespaces that are open: the one that the root has left (where nobody of the tree is), its own, and that of a child,
 * which has the root's open (privileged).
 */
#include "tree.h"
#include <sched.h>
#include <sys/utsname.h>

static int ready[2];

static int own(void)
{
    return (int)MUST(open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC));
}

static void begin_one(const char *name)
{
    if (unshare(CLONE_NEWUTS))
        subject_skip("namespaces (CAP_SYS_ADMIN)");
    MUST(sethostname(name, strlen(name)));
}

static void expect_called(int fd, const char *name, const char *what)
{
    struct utsname names;
    MUST(setns(fd, CLONE_NEWUTS));
    MUST(uname(&names));
    EXPECT(strcmp(names.nodename, name) == 0, "%s is called %s", what, names.nodename);
}

static int work(int told, void *argument)
{
    int roots = *(int *)argument;
    begin_one("of-the-child");
    MUST(write(ready[1], "x", 1));
    child_wait(told);
    expect_called(roots, "of-the-root", "the root's, open in the child,");
    return 3;
}

int main(int argc, char **argv)
{
    char byte, path[64];
    struct utsname outside;
    subject_begin(argc, argv);
    MUST(uname(&outside));
    MUST(pipe(ready));
    int left = own();
    begin_one("of-the-root");
    int mine = own();
    struct child child = child_start(work, &mine);
    MUST(read(ready[0], &byte, 1));
    snprintf(path, sizeof path, "/proc/%d/ns/uts", (int)child.pid);
    int childs = (int)MUST(open(path, O_RDONLY | O_CLOEXEC));
    subject_wait(NULL);
    expect_called(childs, "of-the-child", "the child's");
    expect_called(left, outside.nodename, "the one outside");
    expect_called(mine, "of-the-root", "the root's");
    child_tell(child);
    child_expect_exit(child, 3, "the child");
    subject_pass();
}
