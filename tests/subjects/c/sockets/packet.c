/* Packet sockets: what they are bound to, options, memberships; they hear what they heard, and nothing else. */
#include "../subject.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/packet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>

#define COUNT(items) (sizeof(items) / sizeof *(items))
#define PROTOCOL 0x88b5 /* for experiments */
#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

static int sender, lo, heard[3], own;

/* A frame on the loopback device: which, and the subject that it is of. */
static void say(char which)
{
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(PROTOCOL), .sll_ifindex = lo, .sll_halen = 6};
    char text[64] = {which};
    memcpy(text + 1, &own, sizeof own);
    MUST(sendto(sender, text, sizeof text, 0, (struct sockaddr *)&to, sizeof to));
}

/* The next frame of this subject, 0 where there is none; the payload begins at `offset`. */
static char hear(int fd, size_t offset, int wait_ms)
{
    for (;;) {
        char frame[256] = "";
        struct pollfd asked = {fd, POLLIN, 0};
        if (MUST(poll(&asked, 1, wait_ms)) == 0)
            return 0;
        long size = MUST(recv(fd, frame, sizeof frame, 0));
        if (size >= (long)(offset + 5) && memcmp(frame + offset + 1, &own, sizeof own) == 0)
            return frame[offset];
    }
}

static void filter(int fd, size_t offset)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, (unsigned)offset),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'h', 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0xffff),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {COUNT(code), code};
    MUST(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
}

static void bind_to(int fd, int type, int protocol)
{
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons((unsigned short)protocol), .sll_ifindex = lo};
    struct sockaddr_pkt old = {.spkt_family = AF_PACKET, .spkt_device = "lo"};
    MUST(type == SOCK_PACKET ? bind(fd, (struct sockaddr *)&old, sizeof(struct sockaddr)) : bind(fd, (struct sockaddr *)&at, sizeof at));
}

static void spoil_sort(void)
{
    int none = 0, type;
    socklen_t size = sizeof type;
    MUST(getsockopt(heard[0], SOL_SOCKET, SO_TYPE, &type, &size));
    for (int i = 0; i < 2; i++)
        MUST(setsockopt(heard[i], SOL_SOCKET, SO_DETACH_FILTER, &none, sizeof none));
    if (type != SOCK_PACKET)
        bind_to(heard[1], type, PROTOCOL + 1);
    say('h'); /* which must not be heard again */
}

/* One that is bound and one that is not, both filtered, and one that hears nothing. */
static void check_sort(int type)
{
    struct sockaddr_ll names[3] = {{0}}, now;
    socklen_t sizes[3], size;
    size_t offset = type == SOCK_DGRAM ? 0 : ETH_HLEN;
    for (int i = 0; i < 3; i++) {
        heard[i] = (int)MUST(socket(AF_PACKET, type | (i ? 0 : SOCK_NONBLOCK), i < 2 ? htons(PROTOCOL) : 0));
        filter(heard[i], offset);
        if (i != 1)
            bind_to(heard[i], type, 0);
        sizes[i] = sizeof names[i];
        MUST(getsockname(heard[i], (struct sockaddr *)&names[i], &sizes[i]));
    }
    subject_wait(spoil_sort);
    say('-');
    say('h');
    say('-');
    say('h');
    for (int i = 0; i < 3; i++) {
        now = (struct sockaddr_ll){0};
        size = sizeof now;
        MUST(getsockname(heard[i], (struct sockaddr *)&now, &size));
        EXPECT(size == sizes[i] && memcmp(&now, &names[i], size) == 0, "socket %d: another name", i);
        for (int turn = 0; i < 2 && turn < 2; turn++)
            EXPECT(hear(heard[i], offset, 10000) == 'h', "socket %d hears something else", i);
        EXPECT(hear(heard[i], offset, 0) == 0, "socket %d hears more", i);
    }
    EXPECT(fcntl(heard[0], F_GETFL) & O_NONBLOCK, "it waits");
}

static const int options[][3] = {
    {SOL_PACKET, PACKET_AUXDATA, 1}, {SOL_PACKET, PACKET_ORIGDEV, 1}, {SOL_PACKET, PACKET_VERSION, TPACKET_V2},
    {SOL_PACKET, PACKET_RESERVE, 32}, {SOL_PACKET, PACKET_LOSS, 1}, {SOL_PACKET, PACKET_TIMESTAMP, 1 << 3},
    {SOL_PACKET, PACKET_VNET_HDR, 1}, {SOL_PACKET, PACKET_COPY_THRESH, 100}, {SOL_PACKET, PACKET_TX_HAS_OFF, 1},
    {SOL_PACKET, PACKET_QDISC_BYPASS, 1}, {SOL_PACKET, PACKET_IGNORE_OUTGOING, 1}, {SOL_SOCKET, SO_RCVBUF, 30000},
    {SOL_SOCKET, SO_TIMESTAMP, 1}, {SOL_SOCKET, SO_PRIORITY, 3},
};

static void spoil_options(void)
{
    for (unsigned i = 0; i < COUNT(options); i++) {
        int value = options[i][0] == SOL_SOCKET ? options[i][2] / 2 : 0;
        MUST(setsockopt(heard[0], options[i][0], options[i][1], &value, sizeof value));
    }
}

static void check_options(void)
{
    int before[COUNT(options)], now;
    bool readable[COUNT(options)];
    heard[0] = (int)MUST(socket(AF_PACKET, SOCK_RAW, htons(PROTOCOL)));
    bind_to(heard[0], SOCK_RAW, 0);
    for (unsigned i = 0; i < COUNT(options); i++) {
        socklen_t size = sizeof before[i];
        MUST(setsockopt(heard[0], options[i][0], options[i][1], &options[i][2], sizeof options[i][2]));
        readable[i] = getsockopt(heard[0], options[i][0], options[i][1], &before[i], &size) == 0;
    }
    subject_wait(spoil_options);
    for (unsigned i = 0; i < COUNT(options); i++) {
        socklen_t size = sizeof now;
        if (!readable[i])
            continue;
        MUST(getsockopt(heard[0], options[i][0], options[i][1], &now, &size));
        EXPECT(now == before[i], "option %d/%d is %d, was %d", options[i][0], options[i][1], now, before[i]);
    }
    say('h');
    EXPECT(hear(heard[0], 10 + ETH_HLEN, 10000) == 'h', "another frame"); /* behind a struct virtio_net_hdr */
}

static struct packet_mreq joined[] = {
    {.mr_type = PACKET_MR_PROMISC}, {.mr_type = PACKET_MR_ALLMULTI},
    {.mr_type = PACKET_MR_MULTICAST, .mr_alen = 6, .mr_address = {0x01, 0x00, 0x5e, 0x77, 0x01, 0x02}},
};

/* How many times a socket has asked for a membership, as sock_diag(7) tells. */
static unsigned members(int fd, unsigned which)
{
    struct {
        struct nlmsghdr header;
        struct packet_diag_req body;
    } question = {{sizeof question, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0}, {.sdiag_family = AF_PACKET}};
    question.body.pdiag_show = PACKET_SHOW_MCLIST;
    int diag = (int)MUST(socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG));
    struct stat own_stat;
    MUST(fstat(fd, &own_stat));
    MUST(send(diag, &question, sizeof question, 0));
    unsigned found = 0;
    for (bool done = false; !done;) {
        char room[32768];
        int left = (int)MUST(recv(diag, room, sizeof room, 0));
        for (struct nlmsghdr *one = (struct nlmsghdr *)room; NLMSG_OK(one, left); one = NLMSG_NEXT(one, left)) {
            struct packet_diag_msg *told = NLMSG_DATA(one);
            done |= one->nlmsg_type == NLMSG_DONE || one->nlmsg_type == NLMSG_ERROR;
            EXPECT(one->nlmsg_type != NLMSG_ERROR, "sock_diag fails");
            if (done || told->pdiag_ino != own_stat.st_ino)
                continue;
            struct rtattr *list = (struct rtattr *)(told + 1);
            struct packet_diag_mclist *items = RTA_DATA(list);
            EXPECT(list->rta_type == PACKET_DIAG_MCLIST, "no list of memberships");
            for (size_t i = 0; i < RTA_PAYLOAD(list) / sizeof *items; i++)
                if (items[i].pdmc_index == (unsigned)lo && items[i].pdmc_type == joined[which].mr_type &&
                    items[i].pdmc_alen == joined[which].mr_alen &&
                    memcmp(items[i].pdmc_addr, joined[which].mr_address, items[i].pdmc_alen) == 0)
                    found += items[i].pdmc_count;
        }
    }
    close(diag);
    return found;
}

static void spoil_joined(void)
{
    MUST(setsockopt(heard[0], SOL_PACKET, PACKET_DROP_MEMBERSHIP, &joined[0], sizeof joined[0]));
    MUST(setsockopt(heard[0], SOL_PACKET, PACKET_ADD_MEMBERSHIP, &joined[2], sizeof joined[2]));
}

static void check_joined(void)
{
    heard[0] = (int)MUST(socket(AF_PACKET, SOCK_RAW, 0));
    heard[1] = (int)MUST(socket(AF_PACKET, SOCK_DGRAM, 0));
    for (unsigned i = 0; i < COUNT(joined); i++) {
        joined[i].mr_ifindex = lo;
        for (unsigned turn = 0; turn <= i; turn++)
            MUST(setsockopt(heard[0], SOL_PACKET, PACKET_ADD_MEMBERSHIP, &joined[i], sizeof joined[i]));
    }
    subject_wait(spoil_joined);
    for (unsigned i = 0; i < COUNT(joined); i++) {
        unsigned found = members(heard[0], i);
        EXPECT(found == i + 1, "membership %u: %u times", i, found);
        EXPECT(members(heard[1], i) == 0, "another socket has joined");
    }
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *what = argc > 2 ? argv[2] : "";
    own = getpid();
    lo = (int)if_nametoindex("lo");
    if ((sender = socket(AF_PACKET, SOCK_DGRAM, 0)) < 0)
        subject_skip("packet sockets (CAP_NET_RAW)");
    if (strcmp(what, "options") == 0)
        check_options();
    else if (strcmp(what, "joined") == 0)
        check_joined();
    else
        check_sort(strcmp(what, "old") == 0 ? SOCK_PACKET : strcmp(what, "cooked") == 0 ? SOCK_DGRAM : SOCK_RAW);
    subject_pass();
}
