/* A file system in the making (fsopen), or by argument a mount that is nowhere (open_tree): refused by name. */
#include "../subject.h"
#include <sys/syscall.h>

#ifndef SYS_fsopen
#define SYS_fsopen 430
#define SYS_open_tree 428
#endif

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (argc > 2) {
        if (syscall(SYS_open_tree, AT_FDCWD, "/usr", O_CLOEXEC | 1 /* OPEN_TREE_CLONE */) < 0)
            subject_skip("open_tree (CAP_SYS_ADMIN)");
    } else if (syscall(SYS_fsopen, "tmpfs", 0) < 0)
        subject_skip("fsopen (CAP_SYS_ADMIN)");
    subject_wait(NULL);
    subject_pass();
}
