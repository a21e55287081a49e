/* UDP-Lite sockets: addresses, how much the checksums cover, and one that sends no more. */
#include "../subject.h"
#include <netinet/in.h>
#include <sys/socket.h>

#define UDPLITE_SEND_CSCOV 10
#define UDPLITE_RECV_CSCOV 11

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int receiver = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE), covers = 20;
    if (receiver < 0)
        subject_skip("UDP-Lite");
    int sender = (int)MUST(socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, now;
    socklen_t size = sizeof address;
    MUST(bind(receiver, (struct sockaddr *)&address, sizeof address));
    MUST(getsockname(receiver, (struct sockaddr *)&address, &size));
    MUST(connect(sender, (struct sockaddr *)&address, sizeof address));
    MUST(setsockopt(sender, IPPROTO_UDPLITE, UDPLITE_SEND_CSCOV, &covers, sizeof covers));
    MUST(setsockopt(receiver, IPPROTO_UDPLITE, UDPLITE_RECV_CSCOV, &covers, sizeof covers));
    int silent = (int)MUST(socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE));
    MUST(connect(silent, (struct sockaddr *)&address, sizeof address));
    MUST(shutdown(silent, SHUT_WR));
    subject_wait(NULL);
    EXPECT(send(silent, "a", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "one that is shut down sends");
    size = sizeof now;
    MUST(getsockname(receiver, (struct sockaddr *)&now, &size));
    EXPECT(now.sin_port == address.sin_port, "port %d was %d", ntohs(now.sin_port), ntohs(address.sin_port));
    covers = 0;
    size = sizeof covers;
    MUST(getsockopt(receiver, IPPROTO_UDPLITE, UDPLITE_RECV_CSCOV, &covers, &size));
    EXPECT(covers == 20, "checksums cover %d", covers);
    char text[64] = "twenty bytes and more";
    MUST(send(sender, text, 40, 0));
    EXPECT(recv(receiver, text, sizeof text, 0) == 40, "nothing comes");
    subject_pass();
}
