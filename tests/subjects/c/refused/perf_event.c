/* A performance counter: refused by name. */
#include "../subject.h"
#include <linux/perf_event.h>
#include <sys/syscall.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_TASK_CLOCK,
                                   .exclude_kernel = 1};
    if (syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0) < 0)
        subject_skip("performance counters (perf_event_paranoid)");
    subject_wait(NULL);
    subject_pass();
}
