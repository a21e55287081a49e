/* A socket of the Internet with another protocol than TCP and UDP (Multipath TCP), in use: refused by name. */
#include "../subject.h"
#include <netinet/in.h>
#include <sys/socket.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
    if (fd < 0)
        subject_skip("Multipath TCP");
    MUST(listen(fd, 1));
    subject_wait(NULL);
    subject_pass();
}
