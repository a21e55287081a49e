/* Options of sockets that a restore in place takes from the present: what was set since is undone. */
#include "../subject.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

static int tcp, udp, named, pair[2];

static void set(int fd, int level, int name, int value)
{
    MUST(setsockopt(fd, level, name, &value, sizeof value));
}

static void expect(int fd, int level, int name, int wanted, const char *what)
{
    int value = -1;
    socklen_t size = sizeof value;
    MUST(getsockopt(fd, level, name, &value, &size));
    EXPECT(value == wanted, "%s is %d, not %d", what, value, wanted);
}

static void spoil(void)
{
    set(tcp, IPPROTO_TCP, TCP_NODELAY, 1);
    set(tcp, IPPROTO_TCP, TCP_KEEPCNT, 9);
    MUST(listen(tcp, 99));
    set(udp, SOL_SOCKET, SO_BROADCAST, 1);
    set(udp, IPPROTO_IP, IP_TOS, 0x10);
    char byte;
    MUST(recv(udp, &byte, 1, 0)); /* the offset moves back by what is received */
    set(named, SOL_SOCKET, SO_PASSCRED, 1);
    set(pair[0], SOL_SOCKET, SO_PASSCRED, 1);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t size = sizeof address;
    tcp = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    set(tcp, IPPROTO_TCP, TCP_KEEPCNT, 4);
    MUST(bind(tcp, (struct sockaddr *)&address, sizeof address));
    MUST(listen(tcp, 5));
    udp = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
    MUST(bind(udp, (struct sockaddr *)&address, sizeof address));
    MUST(getsockname(udp, (struct sockaddr *)&address, &size));
    set(udp, SOL_SOCKET, SO_PEEK_OFF, 0);
    int sender = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
    MUST(sendto(sender, "abcdef", 6, 0, (struct sockaddr *)&address, sizeof address));
    char bytes[8];
    EXPECT(recv(udp, bytes, 2, MSG_PEEK) == 2, "peeking");
    named = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "nbcr-rewound-%d", (int)getpid());
    MUST(bind(named, (struct sockaddr *)&name, sizeof name));
    MUST(listen(named, 3));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    subject_wait(spoil);

    expect(tcp, IPPROTO_TCP, TCP_NODELAY, 0, "TCP_NODELAY");
    expect(tcp, IPPROTO_TCP, TCP_KEEPCNT, 4, "TCP_KEEPCNT");
    expect(udp, SOL_SOCKET, SO_BROADCAST, 0, "SO_BROADCAST");
    expect(udp, IPPROTO_IP, IP_TOS, 0, "IP_TOS");
    expect(udp, SOL_SOCKET, SO_PEEK_OFF, 2, "SO_PEEK_OFF");
    EXPECT(recv(udp, bytes, 2, MSG_PEEK) == 2 && bytes[0] == 'c', "a peek does not go on where it was");
    expect(named, SOL_SOCKET, SO_PASSCRED, 0, "SO_PASSCRED");
    expect(pair[0], SOL_SOCKET, SO_PASSCRED, 0, "SO_PASSCRED of a pair");
    struct tcp_info info;
    size = sizeof info;
    MUST(getsockopt(tcp, IPPROTO_TCP, TCP_INFO, &info, &size));
    EXPECT(info.tcpi_sacked == 5, "a backlog of %u", info.tcpi_sacked); /* that is where it is told */
    int client = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(connect(client, (struct sockaddr *)&name, sizeof name));
    struct ucred peer;
    size = sizeof peer;
    MUST(getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &size));
    EXPECT(peer.pid == getpid(), "a new client finds process %d at the other end", (int)peer.pid);
    subject_pass();
}
