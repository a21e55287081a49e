/* Children whose end is told by another signal than SIGCHLD, or by none. */
#include "tree.h"
#include <signal.h>
#include <sys/syscall.h>

#define TOLD (SIGRTMIN + 3)
static volatile sig_atomic_t told, others;
static void count(int number) { number == TOLD ? told++ : others++; }

static struct child clone_one(int signal_at_end, int status)
{
    int ends[2];
    MUST(pipe2(ends, O_CLOEXEC));
    pid_t pid = (pid_t)MUST(syscall(SYS_clone, signal_at_end, NULL, NULL, NULL, 0));
    if (pid == 0) {
        close(ends[1]);
        child_wait(ends[0]);
        _exit(status);
    }
    close(ends[0]);
    return (struct child){pid, ends[1]};
}

static void expect_end(struct child child, int status, int how)
{
    int found = 0;
    pid_t got;
    child_tell(child);
    while ((got = waitpid(child.pid, &found, how)) == -1 && errno == EINTR)
        ;
    EXPECT(got == child.pid && found == status << 8, "waiting gives %d, status %#x", (int)got, found);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    signal(TOLD, count);
    signal(SIGCHLD, count);
    struct child one = clone_one(TOLD, 5), silent = clone_one(0, 6);
    subject_wait(NULL);
    int status;
    EXPECT(waitpid(-1, &status, WNOHANG) == -1 && errno == ECHILD, "they are ordinary children now");
    expect_end(one, 5, __WCLONE);
    expect_end(silent, 6, __WALL);
    EXPECT(told == 1 && others == 0, "%d of its signals, %d others", (int)told, (int)others);
    subject_pass();
}
