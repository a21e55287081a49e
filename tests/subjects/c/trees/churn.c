/* Children are born and end all the time, also while the freeze looks for them. */
#include "tree.h"

static int work(int told, void *argument)
{
    int made = 0;
    (void)argument;
    MUST(fcntl(told, F_SETFL, O_NONBLOCK));
    char byte;
    while (read(told, &byte, 1) != 1) {
        pid_t child = (pid_t)MUST(fork());
        if (child == 0)
            _exit(made % 100);
        int status;
        MUST(waitpid(child, &status, 0));
        EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == made % 100, "a short child's status is %#x", status);
        made++;
    }
    EXPECT(made > 5, "only %d children", made);
    return 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct child children[2] = {child_start(work, NULL), child_start(work, NULL)};
    for (int i = 0; i < 50; i++)
        subject_tick();
    subject_wait(NULL);
    for (int i = 0; i < 50; i++)
        subject_tick();
    for (int i = 0; i < 2; i++) {
        child_tell(children[i]);
        child_expect_exit(children[i], 0, "a mother");
    }
    subject_pass();
}
