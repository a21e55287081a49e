/* A session whose controlling terminal none of it has open: the controlling side is its parent's.
   With a number: its own is at least that high. */
#include "../trees/tree.h"
#include <sys/ioctl.h>
#include <termios.h>

static int session(int told, void *name)
{
    MUST(setsid());
    int slave = (int)MUST(open(name, O_RDWR | O_NOCTTY));
    MUST(ioctl(slave, TIOCSCTTY, 0));
    MUST(close(slave));
    kill(getppid(), SIGUSR1);
    child_wait(told);
    int own = open("/dev/tty", O_RDWR);
    if (own < 0)
        return 1;
    if (tcgetsid(own) != getsid(0) || tcgetpgrp(own) != getpgrp())
        return 2;
    return write(own, "hello", 5) == 5 ? 42 : 3;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int master, got, spare[512], spares = argc > 2 ? atoi(argv[2]) : 0;
    for (int i = 0; i < spares; i++)
        spare[i] = (int)MUST(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    master = (int)MUST(posix_openpt(O_RDWR | O_NOCTTY));
    for (int i = 0; i < spares; i++)
        MUST(close(spare[i]));
    char name[64], text[8] = "";
    MUST(unlockpt(master));
    MUST0(ptsname_r(master, name, sizeof name));
    sigset_t ready;
    sigemptyset(&ready);
    sigaddset(&ready, SIGUSR1);
    MUST(sigprocmask(SIG_BLOCK, &ready, NULL));
    struct child child = child_start(session, name);
    MUST0(sigwait(&ready, &got));
    subject_wait(NULL);
    child_tell(child);
    child_expect_exit(child, 42, "the session");
    EXPECT(read(master, text, 5) == 5 && strcmp(text, "hello") == 0, "it said '%s'", text);
    subject_pass();
}
