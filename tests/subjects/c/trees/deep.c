/* A chain of twenty generations, each of which waits for the next and answers for it. */
#include "tree.h"

#define DEPTH 20

static int descend(int told, int depth)
{
    if (depth == DEPTH) {
        child_wait(told);
        return 0;
    }
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0)
        _exit(descend(told, depth + 1));
    int status;
    while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) + 1 : 100;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int ends[2], ready[2];
    MUST(pipe(ends));
    MUST(pipe(ready));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        close(ready[0]);
        _exit(descend(ends[0], 1));
    }
    MUST(close(ready[1]));
    for (char path[64] = ""; strchr(path, '/') == NULL;) { /* until somebody has no child of its own and waits for us */
        pid_t at = pid;
        for (int i = 1; i < DEPTH && at; i++) {
            snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)at, (int)at);
            FILE *list = fopen(path, "r");
            if (!list || fscanf(list, "%d", &at) != 1)
                at = 0;
            if (list)
                fclose(list);
        }
        if (!at || child_state(at) != 'S')
            path[0] = 0;
    }
    subject_wait(NULL);
    MUST(write(ends[1], "x", 1));
    int status;
    MUST(waitpid(pid, &status, 0));
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == DEPTH - 1, "%d generations answered", WEXITSTATUS(status));
    subject_pass();
}
