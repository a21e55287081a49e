/* Packet filters of sockets, one of which nobody may change any more: they go on filtering. */
#include "../subject.h"
#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define COUNT(code) (sizeof(code) / sizeof *(code))
static struct sock_filter code[] = {
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'a', 0, 1),
    BPF_STMT(BPF_RET | BPF_K, 0xffff),
    BPF_STMT(BPF_RET | BPF_K, 0),
};

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sock_fprog program = {COUNT(code), code};
    int pair[2], on = 1, udp = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0)), tcp = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    MUST(write(pair[1], "kept", 4));
    MUST(setsockopt(pair[0], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
    MUST(setsockopt(udp, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
    if (setsockopt(tcp, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) && errno == EPERM)
        tcp = udp; /* without CAP_NET_ADMIN */
    MUST(setsockopt(udp, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof on));
    subject_wait(NULL);
    for (int i = 0; i < 3; i++) {
        struct sock_filter found[16];
        socklen_t size = COUNT(found);
        MUST(getsockopt((int[]){pair[0], udp, tcp}[i], SOL_SOCKET, SO_GET_FILTER, found, &size));
        EXPECT(size == COUNT(code) && memcmp(found, code, sizeof code) == 0, "%d has another filter", i);
    }
    EXPECT(setsockopt(udp, SOL_SOCKET, SO_DETACH_FILTER, &on, sizeof on) == -1 && errno == EPERM, "the lock is lost");
    char text[8] = "";
    EXPECT(recv(pair[0], text, sizeof text, 0) == 4 && memcmp(text, "kept", 4) == 0, "what waits is lost");
    MUST(send(pair[1], "b", 1, 0));
    MUST(send(pair[1], "a", 1, 0));
    EXPECT(recv(pair[0], text, sizeof text, 0) == 1 && text[0] == 'a', "not filtered: %c", text[0]);
    subject_pass();
}
