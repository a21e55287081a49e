/* A working folder below the process's own in /proc. */
#include "../subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char path[64], now[PATH_MAX];
    snprintf(path, sizeof path, "/proc/%d/task", (int)getpid());
    MUST(chdir(path));
    subject_wait(NULL);
    EXPECT(getcwd(now, sizeof now) != NULL, "no working folder: %s", strerror(errno));
    snprintf(path, sizeof path, "%d/comm", (int)getpid());
    EXPECT(access(path, R_OK) == 0, "%s is not there: %s", path, strerror(errno));
    subject_pass();
}
