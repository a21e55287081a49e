/* Pseudo-terminals: packet mode, exclusive use, a locked one, one hung up, one in raw mode. */
#include "../subject.h"
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

static int open_master(void)
{
    int fd = (int)MUST(posix_openpt(O_RDWR | O_NOCTTY));
    MUST(grantpt(fd));
    return fd;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int one = 1, value = 0, packet = open_master(), locked = open_master(), hung = open_master();
    MUST(unlockpt(packet));
    int slave = (int)MUST(open(ptsname(packet), O_RDWR | O_NOCTTY));
    MUST(ioctl(packet, TIOCPKT, &one));
    MUST(ioctl(slave, TIOCEXCL));
    struct termios raw;
    MUST(tcgetattr(slave, &raw));
    cfmakeraw(&raw);
    raw.c_iflag |= IXON;
    MUST(tcsetattr(slave, TCSANOW, &raw));
    char byte[8];
    MUST(fcntl(packet, F_SETFL, O_NONBLOCK));
    while (read(packet, byte, sizeof byte) > 0) /* what the changes of the settings tell */
        ;
    MUST(fcntl(packet, F_SETFL, 0));
    MUST(unlockpt(hung));
    close((int)MUST(open(ptsname(hung), O_RDWR | O_NOCTTY)));
    subject_wait(NULL);
    MUST(ioctl(packet, TIOCGPKT, &value));
    EXPECT(value == 1, "packet mode is off");
    MUST(write(slave, "out", 3));
    EXPECT(read(packet, byte, sizeof byte) == 4 && byte[0] == TIOCPKT_DATA && !memcmp(byte + 1, "out", 3), "the packet");
    MUST(ioctl(slave, TIOCGEXCL, &value));
    EXPECT(value == 1, "it is not exclusive any more");
    struct termios now;
    MUST(tcgetattr(slave, &now));
    EXPECT(!(now.c_lflag & (ICANON | ECHO)) && (now.c_iflag & IXON), "it is not raw");
    MUST(ioctl(locked, TIOCGPTLCK, &value));
    EXPECT(value == 1, "the locked one is open");
    MUST(fcntl(hung, F_SETFL, O_NONBLOCK));
    EXPECT(read(hung, byte, 1) == -1 && errno == EIO, "the hung up one gives %s", strerror(errno));
    int again = (int)MUST(open(ptsname(hung), O_RDWR | O_NOCTTY));
    MUST(write(hung, "x\n", 2));
    EXPECT(read(again, byte, 8) == 2, "it cannot be used again");
    subject_pass();
}
