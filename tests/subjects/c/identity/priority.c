/* Nice value, I/O priority, autogroup-free: what the whole process was given. */
#include "../subject.h"
#include <sys/resource.h>
#include <sys/syscall.h>

static void spoil(void) { setpriority(PRIO_PROCESS, 0, 19); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int best_effort_6 = 2 << 13 | 6;
    MUST(setpriority(PRIO_PROCESS, 0, 6));
    MUST(syscall(SYS_ioprio_set, 1, 0, best_effort_6));
    subject_wait(spoil);
    EXPECT(getpriority(PRIO_PROCESS, 0) == 6, "nice %d", getpriority(PRIO_PROCESS, 0));
    EXPECT(syscall(SYS_ioprio_get, 1, 0) == best_effort_6, "I/O priority %#lx", syscall(SYS_ioprio_get, 1, 0));
    subject_pass();
}
