/* Children with memory of their own; they are told, they exit, they are waited for, each with its own status. */
#include "tree.h"

#define COUNT 5
static char area[100000];

static int work(int told, void *argument)
{
    int me = (int)(long)argument;
    pid_t parent = getppid(), pid = getpid();
    subject_fill(area, sizeof area, (uint64_t)me);
    child_wait(told);
    EXPECT_FILLED(area, sizeof area, (uint64_t)me, "a child's memory");
    EXPECT(getppid() == parent, "a child's parent is %d instead of %d", (int)getppid(), (int)parent);
    EXPECT(getpid() == pid, "a child's pid is %d instead of %d", (int)getpid(), (int)pid);
    return 20 + me;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct child children[COUNT];
    for (long i = 0; i < COUNT; i++)
        children[i] = child_start(work, (void *)i);
    subject_wait(NULL);
    for (int i = COUNT - 1; i >= 0; i--) {
        EXPECT(waitpid(children[i].pid, NULL, WNOHANG) == 0, "child %d ended by itself", i);
        child_tell(children[i]);
        child_expect_exit(children[i], 20 + i, "a child");
    }
    EXPECT(wait(NULL) == -1 && errno == ECHILD, "there are more children than before");
    subject_pass();
}
