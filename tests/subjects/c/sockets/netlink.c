/* A netlink socket: refused by name. */
#include "../subject.h"
#include <linux/netlink.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    MUST(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
    subject_wait(NULL);
    subject_pass();
}
