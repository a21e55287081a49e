/* A socket with a packet filter: refused by name. */
#include "../subject.h"
#include <linux/filter.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, 0xffff)};
    struct sock_fprog program = {1, code};
    int fd = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
    MUST(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
    subject_wait(NULL);
    subject_pass();
}
