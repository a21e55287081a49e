/* A file system in the making (fsopen): refused by name. */
#include "../subject.h"
#include <sys/syscall.h>

#ifndef SYS_fsopen
#define SYS_fsopen 430
#endif

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (syscall(SYS_fsopen, "tmpfs", 0) < 0)
        subject_skip("fsopen (CAP_SYS_ADMIN)");
    subject_wait(NULL);
    subject_pass();
}
