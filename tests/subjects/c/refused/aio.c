/* A context for asynchronous I/O (io_setup): refused by name. */
#include "../subject.h"
#include <linux/aio_abi.h>
#include <sys/syscall.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    aio_context_t context = 0;
    if (syscall(SYS_io_setup, 16, &context) < 0)
        subject_skip("asynchronous I/O");
    subject_wait(NULL);
    MUST(syscall(SYS_io_destroy, context));
    subject_pass();
}
