/* A parent that waits in vfork for its child, which shares its memory: refused by name. */
#include "tree.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pid_t child = vfork();
    if (child == 0) {
        subject_announce("ready");
        while (access(subject_go, F_OK) != 0)
            subject_tick();
        _exit(6);
    }
    int status;
    MUST(waitpid(child, &status, 0));
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 6, "the child's status is %#x", status);
    subject_pass();
}
