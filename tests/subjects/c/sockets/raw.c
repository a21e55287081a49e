/* A raw IP socket (privileged): refused by name. */
#include "../subject.h"
#include <netinet/in.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) < 0)
        subject_skip("CAP_NET_RAW");
    subject_wait(NULL);
    subject_pass();
}
