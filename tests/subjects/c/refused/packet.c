/* Packet sockets that are refused by name: with a ring, mapped or not, and in a fanout group. */
#include "../subject.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <sys/mman.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *what = argc > 2 ? argv[2] : "";
    int fd = socket(AF_PACKET, SOCK_DGRAM, htons(0x88b5)), group = getpid() & 0xffff;
    if (fd < 0)
        subject_skip("packet sockets (CAP_NET_RAW)");
    struct tpacket_req ring = {.tp_block_size = 4096, .tp_block_nr = 4, .tp_frame_size = 2048, .tp_frame_nr = 8};
    if (strcmp(what, "fanout") == 0)
        MUST(setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, sizeof group));
    else
        MUST(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring));
    if (strcmp(what, "mapped") == 0)
        EXPECT(mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED, "no ring");
    subject_wait(NULL);
    subject_pass();
}
