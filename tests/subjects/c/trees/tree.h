/* Children that do one thing when they are told, by a pipe each, and report by their exit status. */
#include "../subject.h"
#include <signal.h>
#include <sys/wait.h>

struct child {
    pid_t pid;
    int tell;
};

/* In the child: wait until the parent says so. A parent that ended is an end as well. */
UNUSED static void child_wait(int told)
{
    char byte;
    ssize_t got;
    while ((got = read(told, &byte, 1)) == -1 && errno == EINTR)
        ;
    if (got != 1)
        _exit(111);
}

/* Fork; the child runs `work` (its argument, and the pipe to wait on) and exits with what that returns. */
UNUSED static struct child child_start(int (*work)(int told, void *argument), void *argument)
{
    int ends[2];
    MUST(pipe2(ends, O_CLOEXEC));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        close(ends[1]);
        _exit(work(ends[0], argument));
    }
    close(ends[0]);
    return (struct child){pid, ends[1]};
}

UNUSED static void child_tell(struct child child)
{
    MUST(write(child.tell, "x", 1));
}

UNUSED static void child_expect_exit(struct child child, int wanted, const char *what)
{
    int status = 0;
    pid_t got;
    while ((got = waitpid(child.pid, &status, 0)) == -1 && errno == EINTR)
        ;
    EXPECT(got == child.pid, "%s: waiting for %d gives %d: %s", what, (int)child.pid, (int)got, strerror(errno));
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == wanted, "%s: status %#x", what, status);
}

UNUSED static char child_state(pid_t pid)
{
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *stat = fopen(path, "r");
    if (!stat)
        return 0;
    char *got = fgets(line, sizeof line, stat), *end = strrchr(line, ')');
    fclose(stat);
    return got && end ? end[2] : 0;
}
