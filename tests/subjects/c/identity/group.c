/* Session, process group and the same pid where it is asked for. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pid_t pid = getpid();
    bool leads_session = getsid(0) == pid, leads_group = getpgrp() == pid;
    subject_wait(NULL);
    pid_t now = atoi(subject_proc("status", "Pid:"));
    EXPECT((getsid(0) == now) == leads_session, "session %d", (int)getsid(0));
    EXPECT((getpgrp() == now) == leads_group, "group %d", (int)getpgrp());
    EXPECT(getpid() == pid, "getpid gives %d instead of %d", (int)getpid(), (int)pid);
    subject_pass();
}
