/* A pseudo-terminal, both ends inside: settings, window size, bytes waiting in both directions. */
#include "../subject.h"
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

static int master, slave;
static void spoil(void)
{
    struct winsize small = {1, 1, 1, 1};
    ioctl(slave, TIOCSWINSZ, &small);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct termios before, after;
    struct winsize size = {33, 99, 640, 480}, now;
    MUST(openpty(&master, &slave, NULL, NULL, NULL));
    MUST(tcgetattr(slave, &before));
    cfmakeraw(&before);
    before.c_cc[VMIN] = 0, before.c_cc[VTIME] = 7;
    before.c_cc[VINTR] = 'x';
    cfsetospeed(&before, B19200);
    MUST(tcsetattr(slave, TCSANOW, &before));
    MUST(tcgetattr(slave, &before));
    MUST(ioctl(master, TIOCSWINSZ, &size));
    MUST(write(master, "keyboard", 8));
    MUST(write(slave, "screen", 6));
    subject_wait(spoil);
    char text[20] = "";
    MUST(tcgetattr(slave, &after));
    EXPECT(memcmp(&before, &after, offsetof(struct termios, c_cc) + NCCS) == 0, "the settings changed");
    EXPECT(cfgetospeed(&after) == B19200, "the speed changed");
    MUST(ioctl(slave, TIOCGWINSZ, &now));
    EXPECT(memcmp(&size, &now, sizeof size) == 0, "the window is %d x %d", now.ws_row, now.ws_col);
    EXPECT(isatty(slave), "the slave is no terminal any more");
    int waiting = 0;
    MUST(ioctl(slave, FIONREAD, &waiting));
    EXPECT(waiting == 8 && read(slave, text, 20) == 8 && !memcmp(text, "keyboard", 8), "typed input: %d bytes", waiting);
    EXPECT(read(master, text, 20) == 6 && !memcmp(text, "screen", 6), "output");
    MUST(write(slave, "more", 4));
    EXPECT(read(master, text, 20) == 4, "the ends are no longer connected");
    subject_pass();
}
