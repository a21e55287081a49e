/* A terminal some of whose modes nobody may change (TIOCSLCKTRMIOS). */
#include "../subject.h"
#include <sys/ioctl.h>
#include <termios.h>

struct modes { /* struct termios of the OS kernel */
    tcflag_t input, output, control, local;
    cc_t discipline, characters[19];
};

static int slave;

static void spoil(void)
{
    struct modes none = {0};
    struct termios modes;
    MUST(ioctl(slave, TIOCSLCKTRMIOS, &none));
    MUST(tcgetattr(slave, &modes));
    modes.c_lflag |= ECHO;
    MUST(tcsetattr(slave, TCSANOW, &modes));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int master = (int)MUST(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    MUST(unlockpt(master));
    slave = (int)MUST(open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC));
    struct termios modes;
    MUST(tcgetattr(slave, &modes));
    modes.c_lflag &= (tcflag_t)~ECHO;
    MUST(tcsetattr(slave, TCSANOW, &modes));
    struct modes locked = {.local = ECHO}, found;
    if (ioctl(slave, TIOCSLCKTRMIOS, &locked))
        subject_skip("CAP_SYS_ADMIN");
    MUST(write(master, "one\n", 4));
    subject_wait(spoil);
    MUST(ioctl(slave, TIOCGLCKTRMIOS, &found));
    EXPECT(memcmp(&found, &locked, sizeof found) == 0, "locked are %x", found.local);
    modes.c_lflag |= ECHO;
    MUST(tcsetattr(slave, TCSANOW, &modes));
    MUST(tcgetattr(slave, &modes));
    EXPECT(!(modes.c_lflag & ECHO), "it could be changed");
    char line[8];
    EXPECT(read(slave, line, sizeof line) == 4, "what was typed");
    subject_pass();
}
