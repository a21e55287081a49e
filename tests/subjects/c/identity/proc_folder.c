/* A working folder below the process's own in /proc; by argument, that of a child which has ended. */
#include "../subject.h"
#include <sys/wait.h>

static void of_the_dead(void)
{
    char path[64], now[PATH_MAX] = "";
    int go[2];
    MUST(pipe(go));
    pid_t child = (pid_t)MUST(fork());
    if (child == 0) {
        close(go[1]);
        _exit((int)read(go[0], now, 1));
    }
    snprintf(path, sizeof path, "/proc/%d", (int)child);
    MUST(chdir(path));
    close(go[0]);
    close(go[1]);
    MUST(waitpid(child, NULL, 0));
    subject_wait(NULL);
    EXPECT(!getcwd(now, sizeof now) && errno == ENOENT, "a working folder: %s", now);
    MUST(readlink("/proc/self/cwd", now, sizeof now - 1));
    EXPECT(strncmp(now, "/proc/", 6) == 0 && strstr(now, " (deleted)"), "the working folder is %s", now);
    EXPECT(access("comm", F_OK) == -1 && errno == ESRCH, "something is in it: %s", strerror(errno));
    subject_pass();
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (argc > 2 && strcmp(argv[2], "dead") == 0)
        of_the_dead();
    char path[64], now[PATH_MAX];
    snprintf(path, sizeof path, "/proc/%d/task", (int)getpid());
    MUST(chdir(path));
    subject_wait(NULL);
    EXPECT(getcwd(now, sizeof now) != NULL, "no working folder: %s", strerror(errno));
    snprintf(path, sizeof path, "%d/comm", (int)getpid());
    EXPECT(access(path, R_OK) == 0, "%s is not there: %s", path, strerror(errno));
    subject_pass();
}
