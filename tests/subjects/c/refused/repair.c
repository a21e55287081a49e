/* A TCP socket that the program itself has in repair mode: refused by name. */
#include "../sockets/tcp.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)MUST(socket(AF_INET, SOCK_STREAM, 0)), on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on))
        subject_skip("repair mode (CAP_NET_ADMIN)");
    subject_wait(NULL);
    subject_pass();
}
