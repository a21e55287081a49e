/* A controlling terminal with its session and foreground group; the interrupt key sends SIGINT. */
#include "../subject.h"
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

static volatile sig_atomic_t got;
static void handler(int number) { got = number; }

static void in_session(int slave)
{
    EXPECT(getsid(0) == getpid() || getsid(0) == (pid_t)MUST(tcgetsid(slave)), "not the session's leader");
    EXPECT(tcgetpgrp(slave) == getpgrp(), "foreground group %d", (int)tcgetpgrp(slave));
    int tty = open("/dev/tty", O_RDWR);
    EXPECT(tty >= 0, "/dev/tty: %s", strerror(errno));
    close(tty);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int master, slave;
    MUST(openpty(&master, &slave, NULL, NULL, NULL));
    /* the harness starts us as a session's leader, without a terminal */
    if (getsid(0) != getpid())
        MUST(setsid());
    MUST(ioctl(slave, TIOCSCTTY, 0));
    struct sigaction act = {.sa_handler = handler};
    MUST(sigaction(SIGINT, &act, NULL));
    in_session(slave);
    subject_wait(NULL);
    in_session(slave);
    MUST(write(master, "\x03", 1));
    for (int i = 0; i < 1000 && !got; i++)
        subject_tick();
    EXPECT(got == SIGINT, "the interrupt key does not interrupt");
    subject_pass();
}
