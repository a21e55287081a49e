/*
 * A network namespace of a tree's own, with a second address, a setting, and ports and names that others may have
 * outside: a listener below 1024, a connection with data on its way, a UDP socket; a child has its part in them
 * (privileged).
 */
#include "../trees/tree.h"
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#define PORT 443
#define SETTING "/proc/sys/net/ipv4/ip_local_port_range"
#define SECOND 0x0a010203 /* 10.1.2.3 */

static int listener, near, far, udp, name;

static ino_t number_of(const char *path)
{
    struct stat found;
    return stat(path, &found) ? 0 : found.st_ino;
}

static struct sockaddr_in at(uint32_t host, int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(host)}};
}

static void set(const char *value)
{
    int fd = (int)MUST(open(SETTING, O_WRONLY));
    MUST(write(fd, value, strlen(value)));
    close(fd);
}

static void bring_up(void)
{
    int fd = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    MUST(ioctl(fd, SIOCSIFFLAGS, &request));
    struct ifreq another = {.ifr_name = "lo:1"};
    struct sockaddr_in second = at(SECOND, 0);
    memcpy(&another.ifr_addr, &second, sizeof second);
    MUST(ioctl(fd, SIOCSIFADDR, &another));
    close(fd);
}

static int dial(void)
{
    int fd = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in there = at(INADDR_LOOPBACK, PORT);
    MUST(connect(fd, (struct sockaddr *)&there, sizeof there));
    return fd;
}

static int child(int told, void *argument)
{
    (void)argument;
    char text[16] = "";
    child_wait(told);
    struct sockaddr_in second = at(SECOND, PORT);
    int fd = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
    MUST(sendto(fd, "child", 5, 0, (struct sockaddr *)&second, sizeof second));
    return recv(near, text, sizeof text, 0) == 10 && !memcmp(text, "on its way", 10) ? 3 : 1;
}

static void spoil(void)
{
    char text[16];
    MUST(recv(near, text, sizeof text, 0));
    MUST(send(far, "other", 5, 0));
    set("20000 30000");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    ino_t outside = number_of("/proc/self/ns/net");
    char line[64] = "";
    if (unshare(CLONE_NEWNET))
        subject_skip("namespaces (CAP_SYS_ADMIN)");
    bring_up();
    set("40000 41000");
    struct sockaddr_in here = at(INADDR_LOOPBACK, PORT), second = at(SECOND, PORT);
    struct sockaddr_un abstract = {AF_UNIX, "\0nbcr-own-network"};
    listener = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    MUST(bind(listener, (struct sockaddr *)&here, sizeof here));
    MUST(listen(listener, 4));
    far = dial();
    near = (int)MUST(accept(listener, NULL, NULL));
    MUST(send(far, "on its way", 10, 0));
    udp = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
    MUST(bind(udp, (struct sockaddr *)&second, sizeof second));
    name = (int)MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
    MUST(bind(name, (struct sockaddr *)&abstract, sizeof abstract));
    struct child other = child_start(child, NULL);
    subject_wait(spoil);
    EXPECT(number_of("/proc/self/ns/net") != outside, "it is in the namespace outside");
    int fd = (int)MUST(open(SETTING, O_RDONLY));
    MUST(read(fd, line, sizeof line - 1));
    close(fd);
    EXPECT(!strcmp(line, "40000\t41000\n"), "the setting is %s", line);
    child_tell(other);
    child_expect_exit(other, 3, "a child that finds what was on its way");
    EXPECT(recv(udp, line, sizeof line, MSG_DONTWAIT) == 5 && !memcmp(line, "child", 5), "no datagram of the child");
    MUST(send(near, "back", 4, 0));
    EXPECT(recv(far, line, sizeof line, 0) == 4 && !memcmp(line, "back", 4), "nothing comes back");
    int again = dial(), met = (int)MUST(accept(listener, NULL, NULL));
    struct sockaddr_in who = {0};
    socklen_t room = sizeof who;
    MUST(getpeername(met, (struct sockaddr *)&who, &room));
    EXPECT(ntohs(who.sin_port) >= 40000 && ntohs(who.sin_port) <= 41000, "port %d", ntohs(who.sin_port));
    EXPECT(write(again, "x", 1) == 1 && read(met, line, 1) == 1, "a new connection");
    subject_pass();
}
