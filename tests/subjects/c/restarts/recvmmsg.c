/* Blocked in recvmmsg with a part of what it wants: neither that part nor the next call is lost by a freeze. */
#include "../subject.h"
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

#define WANTED 4
static int ends[2][2];

static void *reading(void *arg)
{
    const int *pair = arg;
    char bytes[WANTED] = {0};
    struct iovec parts[WANTED];
    struct mmsghdr messages[WANTED] = {0};
    for (int i = 0; i < WANTED; i++) {
        parts[i] = (struct iovec){&bytes[i], 1};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    for (int got = 0; got < WANTED;)
        got += (int)MUST(recvmmsg(pair[0], messages + got, (unsigned)(WANTED - got), 0, NULL));
    EXPECT(memcmp(bytes, "abcd", WANTED) == 0, "it got '%.4s'", bytes);
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t threads[2];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends[0]));
    for (int i = 0; i < 2; i++)
        ends[1][i] = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
    MUST(bind(ends[1][0], (struct sockaddr *)&at, length));
    MUST(getsockname(ends[1][0], (struct sockaddr *)&at, &length));
    MUST(connect(ends[1][1], (struct sockaddr *)&at, length));
    for (int i = 0; i < 2; i++) {
        MUST(send(ends[i][1], "a", 1, 0));
        MUST0(pthread_create(&threads[i], NULL, reading, ends[i]));
    }
    subject_all_asleep(2);
    subject_wait(NULL);
    for (int i = 0; i < 2; i++) {
        for (const char *byte = "bcd"; *byte; byte++)
            MUST(send(ends[i][1], byte, 1, 0));
        MUST0(pthread_join(threads[i], NULL));
    }
    subject_pass();
}
