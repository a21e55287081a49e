/* An io_uring ring: refused by name. */
#include "../subject.h"
#include <sys/syscall.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char params[120] = {0};
    if (syscall(SYS_io_uring_setup, 4, params) < 0)
        subject_skip("io_uring");
    subject_wait(NULL);
    subject_pass();
}
