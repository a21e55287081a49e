/* A shell's jobs under a terminal: one stopped by the terminal as it read in the background, one by Ctrl-Z, one that
   runs; the parent has heard of the stops once, and hears of them no more. */
#include "tree.h"
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>

static volatile sig_atomic_t told_of;
static void on_child(int number) { told_of += number == SIGCHLD; }

static int reads_in_background(int told, void *argument)
{
    char byte;
    (void)argument;
    setpgid(0, 0);
    child_wait(told);
    if (read(0, &byte, 1) != 1) /* SIGTTIN stops it here, again until it is in the foreground */
        return 1;
    return byte == 'k' ? 21 : 2;
}

static int waits(int told, void *argument)
{
    (void)argument;
    setpgid(0, 0);
    child_wait(told);
    return 22;
}

static void expect_stopped(pid_t pid, int number)
{
    int status;
    MUST(waitpid(pid, &status, WUNTRACED));
    EXPECT(WIFSTOPPED(status) && WSTOPSIG(status) == number, "setting up: %#x", status);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int master, slave, status;
    MUST(openpty(&master, &slave, NULL, NULL, NULL));
    if (getsid(0) != getpid())
        MUST(setsid());
    MUST(ioctl(slave, TIOCSCTTY, 0));
    MUST(dup2(slave, 0));
    signal(SIGTTOU, SIG_IGN);
    MUST(sigaction(SIGCHLD, &(struct sigaction){.sa_handler = on_child, .sa_flags = SA_RESTART}, NULL));
    struct child reader = child_start(reads_in_background, NULL), stopped = child_start(waits, NULL);
    struct child running = child_start(waits, NULL);
    child_tell(reader);
    expect_stopped(reader.pid, SIGTTIN);
    while (getpgid(stopped.pid) != stopped.pid)
        subject_tick();
    MUST(tcsetpgrp(slave, stopped.pid));
    MUST(write(master, "\x1a", 1));
    expect_stopped(stopped.pid, SIGTSTP);
    MUST(tcsetpgrp(slave, getpgrp()));
    told_of = 0;
    subject_wait(NULL);
    EXPECT(tcgetpgrp(slave) == getpgrp(), "the foreground group is %d", (int)tcgetpgrp(slave));
    EXPECT(child_state(reader.pid) == 'T' && child_state(stopped.pid) == 'T', "a stopped job runs");
    EXPECT(waitpid(reader.pid, &status, WNOHANG | WUNTRACED) == 0, "told again of the first stop: %#x", status);
    EXPECT(waitpid(stopped.pid, &status, WNOHANG | WUNTRACED) == 0, "told again of the second stop: %#x", status);
    EXPECT(told_of == 0, "SIGCHLD came again");
    MUST(killpg(stopped.pid, SIGCONT));
    EXPECT(waitpid(stopped.pid, &status, WCONTINUED) == stopped.pid && WIFCONTINUED(status), "status %#x", status);
    child_tell(stopped);
    child_expect_exit(stopped, 22, "the second job");
    MUST(tcsetpgrp(slave, reader.pid));
    MUST(killpg(reader.pid, SIGCONT));
    MUST(write(master, "k\n", 2));
    child_expect_exit(reader, 21, "the first job");
    MUST(tcsetpgrp(slave, getpgrp()));
    child_tell(running);
    child_expect_exit(running, 22, "the running job");
    subject_pass();
}
