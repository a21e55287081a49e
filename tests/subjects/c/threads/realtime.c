/* Real-time policies and priorities (privileged). */
#include "../subject.h"
#include <sched.h>

static void spoil(void)
{
    struct sched_param none = {0};
    sched_setscheduler(0, SCHED_OTHER, &none);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sched_param param = {.sched_priority = 7};
    if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &param))
        subject_skip("CAP_SYS_NICE and real-time scheduling");
    subject_wait(spoil);
    EXPECT(sched_getscheduler(0) == (SCHED_RR | SCHED_RESET_ON_FORK), "policy %d", sched_getscheduler(0));
    MUST(sched_getparam(0, &param));
    EXPECT(param.sched_priority == 7, "priority %d", param.sched_priority);
    subject_pass();
}
