/* Pseudo-terminals of which one side is closed, and one whose output is suspended. */
#include "../subject.h"
#include <termios.h>

static int open_pair(int *program)
{
    int master = (int)MUST(posix_openpt(O_RDWR | O_NOCTTY));
    MUST(unlockpt(master));
    *program = (int)MUST(open(ptsname(master), O_RDWR | O_NOCTTY));
    return master;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int hung_up, closed, suspended;
    MUST(close(open_pair(&hung_up)));
    int master = open_pair(&closed), other = open_pair(&suspended);
    MUST(close(closed));
    MUST(tcflow(suspended, TCOOFF));
    MUST(fcntl(suspended, F_SETFL, O_NONBLOCK));
    subject_wait(NULL);
    char text[10];
    EXPECT(read(hung_up, text, 1) == 0, "the hung up terminal does not end");
    EXPECT(write(hung_up, "x", 1) == -1 && errno == EIO, "it can be written to");
    EXPECT(read(master, text, sizeof text) == -1 && errno == EIO, "the other side seems to be open");
    EXPECT(write(suspended, "x", 1) <= 0, "output is not suspended");
    MUST(tcflow(suspended, TCOON));
    EXPECT(write(suspended, "x", 1) == 1 && read(other, text, 1) == 1, "it does not go on");
    subject_pass();
}
