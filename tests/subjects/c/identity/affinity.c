/* Processors the process may run on. */
#include "../subject.h"
#include <sched.h>

static cpu_set_t all, one, now;
static void spoil(void) { sched_setaffinity(0, sizeof all, &all); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(sched_getaffinity(0, sizeof all, &all));
    for (int cpu = CPU_SETSIZE - 1; cpu >= 0; cpu--)
        if (CPU_ISSET(cpu, &all) && CPU_COUNT(&one) == 0)
            CPU_SET(cpu, &one);
    MUST(sched_setaffinity(0, sizeof one, &one));
    subject_wait(spoil);
    MUST(sched_getaffinity(0, sizeof now, &now));
    EXPECT(CPU_EQUAL(&now, &one), "it may run on %d processors", CPU_COUNT(&now));
    subject_pass();
}
