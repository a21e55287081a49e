/* A packet socket: refused by name. */
#include "../subject.h"
#include <sys/socket.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (socket(AF_PACKET, SOCK_DGRAM, 0) < 0)
        subject_skip("packet sockets (CAP_NET_RAW)");
    subject_wait(NULL);
    subject_pass();
}
