/* The rseq area is registered still: the OS kernel keeps its processor number up to date. */
#include "../subject.h"
#include <sched.h>
#include <sys/rseq.h>
#include <sys/syscall.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (__rseq_size == 0)
        subject_skip("no rseq registration by the C library");
    struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    subject_wait(NULL);
    cpu_set_t all;
    MUST(sched_getaffinity(0, sizeof all, &all));
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &all))
            continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        MUST(sched_setaffinity(0, sizeof one, &one));
        unsigned seen = *(volatile unsigned *)&area->cpu_id;
        EXPECT(seen == (unsigned)cpu, "rseq says processor %d, we run on %d", (int)seen, cpu);
    }
    /* registering the same area again is EBUSY, another one EINVAL; success would mean there was none */
    long again = syscall(SYS_rseq, area, 32, 0, RSEQ_SIG);
    EXPECT(again == -1 && errno == EBUSY, "registering again gives %ld, errno %d", again, errno);
    subject_pass();
}
