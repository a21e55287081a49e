/* A terminal with another line discipline (N_NULL, which discards all): refused by name. */
#include "../subject.h"
#include <sys/ioctl.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char name[64];
    int master = (int)MUST(posix_openpt(O_RDWR | O_NOCTTY)), null = 27;
    MUST(grantpt(master) || unlockpt(master) || ptsname_r(master, name, sizeof name) ? -1 : 0);
    int terminal = (int)MUST(open(name, O_RDWR | O_NOCTTY));
    if (ioctl(terminal, TIOCSETD, &null))
        subject_skip("the line discipline N_NULL");
    subject_wait(NULL);
    subject_pass();
}
