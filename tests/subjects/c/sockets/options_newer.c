/* Options of sockets that came to the OS kernel lately, where this one has them. */
#include "tcp.h"

static const struct {
    int level, name, value;
} options[] = {{IPPROTO_TCP, 34 /* TCP_FASTOPEN_NO_COOKIE */, 1}, {IPPROTO_TCP, 37 /* TCP_TX_DELAY, in us */, 2000},
               {IPPROTO_TCP, 44 /* TCP_RTO_MAX_MS */, 5000},     {IPPROTO_TCP, 45 /* TCP_RTO_MIN_US */, 300000},
               {IPPROTO_TCP, 46 /* TCP_DELACK_MAX_US */, 20000}, {SOL_SOCKET, 82 /* SO_RCVPRIORITY */, 1}};
#define COUNT ((int)(sizeof options / sizeof *options))

static int get(int fd, int i)
{
    int value = -1;
    socklen_t length = sizeof value;
    getsockopt(fd, options[i].level, options[i].name, &value, &length);
    return value;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = (int)MUST(socket(AF_INET, SOCK_STREAM, 0)), before[COUNT];
    for (int i = 0; i < COUNT; i++) {
        setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value);
        before[i] = get(fd, i);
    }
    static const char key[] = "sixteen letters!";
    char found[32];
    bool has_key = setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_KEY, key, 16) == 0;
    subject_wait(NULL);
    for (int i = 0; i < COUNT; i++)
        EXPECT(get(fd, i) == before[i], "option %d is %d instead of %d", options[i].name, get(fd, i), before[i]);
    socklen_t length = sizeof found;
    EXPECT(!has_key || getsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_KEY, found, &length) == 0, "no TCP_FASTOPEN_KEY");
    EXPECT(!has_key || (length == 16 && memcmp(found, key, 16) == 0), "another TCP_FASTOPEN_KEY");
    subject_pass();
}
