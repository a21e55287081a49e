/* What prctl sets: name, parent-death signal, dumpable, subreaper, timer slack, machine-check policy. */
#include "../subject.h"
#include <signal.h>
#include <sys/prctl.h>

static void spoil(void)
{
    prctl(PR_SET_NAME, "spoilt");
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(prctl(PR_SET_NAME, "a name )( %"));
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
    MUST(prctl(PR_SET_TIMERSLACK, 123456));
    MUST(prctl(PR_SET_PDEATHSIG, SIGTERM)); /* the end of who restores it is no death of a parent */
    MUST(prctl(PR_SET_KEEPCAPS, 1));
    subject_wait(spoil);
    char name[20] = "";
    int value = 0;
    MUST(prctl(PR_GET_NAME, name));
    EXPECT(strcmp(name, "a name )( %") == 0, "the name is '%s'", name);
    MUST(prctl(PR_GET_CHILD_SUBREAPER, &value));
    EXPECT(value == 1, "no longer a subreaper");
    EXPECT(prctl(PR_GET_TIMERSLACK) == 123456, "timer slack %d", prctl(PR_GET_TIMERSLACK));
    MUST(prctl(PR_GET_PDEATHSIG, &value));
    EXPECT(value == SIGTERM, "parent-death signal %d", value);
    EXPECT(prctl(PR_GET_KEEPCAPS) == 1, "PR_SET_KEEPCAPS is lost");
    EXPECT(prctl(PR_GET_DUMPABLE) == 1, "dumpable %d", prctl(PR_GET_DUMPABLE));
    subject_pass();
}
