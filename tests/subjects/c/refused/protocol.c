/* A socket of the Internet with another protocol than TCP and UDP (Multipath TCP): refused by name. */
#include "../subject.h"
#include <netinet/in.h>
#include <sys/socket.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP) < 0)
        subject_skip("Multipath TCP");
    subject_wait(NULL);
    subject_pass();
}
