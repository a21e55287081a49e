/* Ports that are shared by options which are off by now, an address without a port, a priority set after IP_TOS, and
 * sockets that would linger when they are closed. */
#include "tcp.h"

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t length = sizeof value;
    MUST(getsockopt(fd, level, name, &value, &length));
    return value;
}

static void set(int fd, int level, int name, int value)
{
    MUST(setsockopt(fd, level, name, &value, sizeof value));
}

static int port(int fd)
{
    struct address at = {.length = sizeof at.six};
    MUST(getsockname(fd, &at.any, &at.length));
    return at.four.sin_port;
}

static int lingering;

static void spoil(void) /* who closes it now would wait for a reader */
{
    static char buffer[1 << 16];
    MUST(fcntl(lingering, F_SETFL, O_NONBLOCK));
    while (write(lingering, buffer, sizeof buffer) > 0)
        ;
    MUST(fcntl(lingering, F_SETFL, 0));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct address at = loopback(AF_INET), here = loopback(AF_INET), where;
    int shared[2], type[2] = {SOCK_STREAM, SOCK_DGRAM}, how[2] = {SO_REUSEPORT, SO_REUSEADDR};
    int twin[2];
    for (int i = 0; i < 2; i++) {
        at.four.sin_port = 0;
        for (int n = 0; n < 2; n++) {
            int fd = (int)MUST(socket(AF_INET, type[i], 0));
            set(fd, SOL_SOCKET, how[i], 1);
            MUST(bind(fd, &at.any, at.length));
            if (type[i] == SOCK_STREAM)
                MUST(listen(fd, 3));
            MUST(getsockname(fd, &at.any, &at.length));
            *(n ? &twin[i] : &shared[i]) = fd;
        }
        set(shared[i], SOL_SOCKET, how[i], 0);
    }
    int portless = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    set(portless, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, 1);
    here.four.sin_addr.s_addr = htonl(0x7f000005);
    MUST(bind(portless, &here.any, here.length));
    set(portless, IPPROTO_IP, IP_TOS, 0x10);
    set(portless, SOL_SOCKET, SO_PRIORITY, 3);
    int listening = listening_at(AF_INET, &where);
    lingering = connected_to(&where);
    int other = (int)MUST(accept(listening, NULL, NULL));
    close(listening);
    struct linger linger = {1, 300};
    MUST(setsockopt(lingering, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    int ports[4] = {port(shared[0]), port(twin[0]), port(shared[1]), port(twin[1])};
    subject_wait(spoil);
    for (int i = 0; i < 2; i++) {
        EXPECT(option(shared[i], SOL_SOCKET, how[i]) == 0, "option %d is on again", how[i]);
        EXPECT(option(twin[i], SOL_SOCKET, how[i]) == 1, "option %d is off", how[i]);
        EXPECT(port(shared[i]) == ports[2 * i] && port(twin[i]) == ports[2 * i + 1], "port of sort %d", i);
    }
    struct address now = {.length = sizeof now.six};
    MUST(getsockname(portless, &now.any, &now.length));
    EXPECT(now.four.sin_addr.s_addr == here.four.sin_addr.s_addr && !now.four.sin_port, "the address without a port");
    EXPECT(option(portless, SOL_SOCKET, SO_PRIORITY) == 3, "the priority");
    EXPECT(option(portless, IPPROTO_IP, IP_TOS) == 0x10, "the type of service");
    memset(&linger, 0, sizeof linger);
    socklen_t length = sizeof linger;
    MUST(getsockopt(lingering, SOL_SOCKET, SO_LINGER, &linger, &length));
    EXPECT(linger.l_onoff == 1 && linger.l_linger == 300, "lingers %d for %d s", linger.l_onoff, linger.l_linger);
    send_filled(lingering, 100, 3);
    expect_arrives(other, 100, 3, "what was sent");
    subject_pass();
}
