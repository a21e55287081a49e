/* A pseudo-terminal in line mode with a finished and an unfinished line. */
#include "../subject.h"
#include <pty.h>
#include <termios.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int master, slave;
    MUST(openpty(&master, &slave, NULL, NULL, NULL));
    struct termios settings;
    MUST(tcgetattr(slave, &settings));
    settings.c_lflag &= ~(tcflag_t)ECHO;
    MUST(tcsetattr(slave, TCSANOW, &settings));
    MUST(write(master, "a whole line\n", 13));
    subject_wait(NULL);
    char text[40] = "";
    MUST(fcntl(slave, F_SETFL, O_NONBLOCK));
    EXPECT(read(slave, text, 40) == 13 && !memcmp(text, "a whole line\n", 13), "the line is '%s'", text);
    EXPECT(read(slave, text, 40) == -1 && errno == EAGAIN, "another line waits");
    MUST(write(master, "next\n", 5));
    EXPECT(read(slave, text, 40) == 5, "a new line does not come");
    MUST(tcgetattr(slave, &settings));
    EXPECT((settings.c_lflag & ICANON) && !(settings.c_lflag & ECHO), "line mode %#x", settings.c_lflag);
    subject_pass();
}
