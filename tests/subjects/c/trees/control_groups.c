/* A child in another control group than its parent (privileged), of both versions where the host has them. */
#include "../control_groups.h"
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char before[8192], after[8192], byte;
    int asked[2], told[2], status;
    make("cgroup2", NULL);
    make("cgroup", NULL);
    if (!made)
        subject_skip("a control group of its own: %s", strerror(errno));
    MUST(pipe(asked));
    MUST(pipe(told));
    pid_t child = (pid_t)MUST(fork());
    if (child == 0) {
        close(asked[1]);
        for (int i = 0; i < made; i++) {
            char procs[3200];
            snprintf(procs, sizeof procs, "%.3100s/cgroup.procs", folders[i]);
            int fd = open(procs, O_WRONLY);
            if (write(fd, "0", 1) != 1)
                _exit(78);
            close(fd);
        }
        groups(before, sizeof before);
        if (write(told[1], "", 1) != 1 || read(asked[0], &byte, 1) != 1)
            _exit(1);
        groups(after, sizeof after);
        _exit(strcmp(before, after) ? 1 : 77);
    }
    close(told[1]);
    if (read(told[0], &byte, 1) == 1) {
        groups(before, sizeof before);
        subject_wait(NULL);
        MUST(write(asked[1], "", 1));
    }
    MUST(wait(&status));
    for (int i = 0; i < made; i++)
        rmdir(folders[i]);
    if (WEXITSTATUS(status) == 78)
        subject_skip("to join a control group");
    EXPECT(WEXITSTATUS(status) == 77, "the child is in another group");
    groups(after, sizeof after);
    EXPECT(strcmp(before, after) == 0, "%s is now %s", before, after);
    subject_pass();
}
