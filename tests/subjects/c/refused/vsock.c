/* A socket to the virtual machine's host: refused by name. */
#include "../subject.h"
#include <sys/socket.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (socket(AF_VSOCK, SOCK_STREAM, 0) < 0)
        subject_skip("vsock");
    subject_wait(NULL);
    subject_pass();
}
