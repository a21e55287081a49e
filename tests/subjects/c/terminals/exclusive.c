/* A terminal that nobody may open once more (TIOCEXCL), and which works all the same. */
#include "../subject.h"
#include <sys/ioctl.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int exclusive = 0;
    char line[8] = "";
    int master = (int)MUST(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    MUST(unlockpt(master));
    int slave = (int)MUST(open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC));
    MUST(ioctl(slave, TIOCEXCL));
    MUST(write(master, "one\n", 4));
    subject_wait(NULL);
    MUST(ioctl(slave, TIOCGEXCL, &exclusive));
    EXPECT(exclusive == 1, "it is not exclusive any more");
    EXPECT(read(slave, line, sizeof line) == 4 && !memcmp(line, "one\n", 4), "what waits in it is %s", line);
    MUST(ioctl(slave, TIOCNXCL));
    MUST(close((int)MUST(open(ptsname(master), O_RDWR | O_NOCTTY))));
    subject_pass();
}
