/* A grandchild whose parent has ended, taken over by the root as subreaper. */
#include "tree.h"
#include <sys/prctl.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int ends[2];
    MUST(pipe(ends));
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t middle = (pid_t)MUST(fork()), orphan = 0;
    if (middle == 0) {
        if (fork() == 0) {
            close(ends[1]);
            while (getppid() != subject_root)
                subject_tick();
            child_wait(ends[0]);
            _exit(getppid() == subject_root ? 66 : 67);
        }
        _exit(0);
    }
    MUST(waitpid(middle, NULL, 0));
    subject_wait(NULL);
    EXPECT(waitpid(-1, NULL, WNOHANG) == 0, "the orphan is not our child");
    MUST(write(ends[1], "x", 1));
    int status;
    orphan = (pid_t)MUST(wait(&status));
    EXPECT(orphan > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 66, "the orphan's status is %#x", status);
    subject_pass();
}
