/* A working folder below a child's in /proc: refused by name. */
#include "../trees/tree.h"

static int work(int told, void *unused)
{
    (void)unused;
    child_wait(told);
    return 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char path[64];
    struct child child = child_start(work, NULL);
    snprintf(path, sizeof path, "/proc/%d", (int)child.pid);
    MUST(chdir(path));
    subject_wait(NULL);
    child_tell(child);
    child_expect_exit(child, 0, "the child");
    subject_pass();
}
