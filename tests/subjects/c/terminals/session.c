/* A shell's picture: a child leads a session on a terminal of ours, its job in the foreground, another in the background. */
#include "../trees/tree.h"
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

static volatile sig_atomic_t interrupted;
static void handler(int number) { interrupted = number; }

static pid_t job(int told)
{
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        setpgid(0, 0);
        MUST(sigaction(SIGINT, &(struct sigaction){.sa_handler = handler}, NULL));
        child_wait(told);
        int terminal = open("/dev/tty", O_RDWR);
        if (terminal < 0 || tcgetsid(terminal) != getppid())
            _exit(44);
        _exit(interrupted == SIGINT ? 42 : 43);
    }
    setpgid(pid, pid);
    return pid;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int master, tell[2], ready[2];
    MUST(pipe(tell));
    MUST(pipe(ready));
    pid_t shell = (pid_t)MUST(forkpty(&master, NULL, NULL, NULL));
    if (shell == 0) {
        signal(SIGTTOU, SIG_IGN);
        pid_t front = job(tell[0]), back = job(tell[0]);
        MUST(tcsetpgrp(0, front));
        MUST(write(ready[1], &front, sizeof front));
        MUST(write(ready[1], &back, sizeof back));
        int status[2];
        MUST(waitpid(front, &status[0], 0));
        MUST(waitpid(back, &status[1], 0));
        bool ours = tcgetpgrp(0) == front && getsid(0) == getpid() && open("/dev/tty", O_RDWR) >= 0;
        _exit(ours && WEXITSTATUS(status[0]) == 42 && WEXITSTATUS(status[1]) == 43 ? 0 : 1);
    }
    pid_t front, back;
    MUST(read(ready[0], &front, sizeof front));
    MUST(read(ready[0], &back, sizeof back));
    subject_wait(NULL);
    EXPECT(tcgetpgrp(master) == front, "the foreground group is %d instead of %d", (int)tcgetpgrp(master), (int)front);
    MUST(write(master, "\x03", 1));
    char text[64];
    MUST(read(master, text, sizeof text)); /* the echo: by now the signal has been sent */
    MUST(write(tell[1], "xx", 2));
    int status;
    MUST(waitpid(shell, &status, 0));
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the shell's status is %#x", status);
    (void)back;
    subject_pass();
}
