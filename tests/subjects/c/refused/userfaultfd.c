/* A userfaultfd: refused by name. */
#include "../subject.h"
#include <sys/syscall.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */) < 0)
        subject_skip("userfaultfd");
    subject_wait(NULL);
    subject_pass();
}
