/* Terminals whose output is suspended: by tcflow, which a control-Q does not undo, and by a control-S, which it does. */
#include "../subject.h"
#include <poll.h>
#include <termios.h>

static int masters[2], slaves[2];

static void make(int i)
{
    masters[i] = (int)MUST(posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK));
    MUST(unlockpt(masters[i]));
    char name[64];
    MUST0(ptsname_r(masters[i], name, sizeof name));
    slaves[i] = (int)MUST(open(name, O_RDWR | O_NOCTTY | O_NONBLOCK));
    MUST(write(slaves[i], "before", 6));
}

static int prints(int i)
{
    struct pollfd asked = {.fd = slaves[i], .events = POLLOUT};
    return poll(&asked, 1, 100);
}

static void await_stop(int i)
{
    for (int tries = 0; tries < 1000 && poll(&(struct pollfd){slaves[i], POLLOUT, 0}, 1, 0); tries++)
        subject_tick();
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    make(0);
    make(1);
    MUST(tcflow(slaves[0], TCOOFF));
    MUST(write(masters[1], "\023", 1)); /* control-S */
    await_stop(0);
    await_stop(1);
    subject_wait(NULL);
    for (int i = 0; i < 2; i++) {
        char text[16] = "";
        EXPECT(read(masters[i], text, sizeof text) == 6 && memcmp(text, "before", 6) == 0, "%d: '%.6s'", i, text);
        EXPECT(prints(i) == 0, "%d is not stopped", i);
        MUST(write(masters[i], "\021", 1)); /* control-Q */
    }
    EXPECT(prints(1) == 1, "control-Q does not undo control-S");
    EXPECT(prints(0) == 0, "control-Q undoes tcflow");
    MUST(tcflow(slaves[0], TCOON));
    EXPECT(prints(0) == 1, "tcflow does not undo tcflow");
    subject_pass();
}
