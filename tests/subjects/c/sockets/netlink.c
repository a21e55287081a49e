/* Netlink sockets: port, groups (also those beyond 32) and options; and they get answers. */
#include "../subject.h"
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <sys/socket.h>

static struct sockaddr_nl address_of(int fd)
{
    struct sockaddr_nl found;
    socklen_t size = sizeof found;
    MUST(getsockname(fd, (struct sockaddr *)&found, &size));
    return found;
}

static void expect_answer(int fd)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg body;
    } question = {.header = {sizeof question, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 7, 0}};
    MUST(send(fd, &question, sizeof question, 0));
    struct pollfd asked = {fd, POLLIN, 0};
    EXPECT(poll(&asked, 1, 10000) == 1, "no answer");
    char text[32768];
    EXPECT(recv(fd, text, sizeof text, 0) > (long)sizeof question.header, "an empty answer");
    EXPECT(((struct nlmsghdr *)text)->nlmsg_seq == 7, "the answer to another question");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int on = 1, far = RTNLGRP_NSID + 5, fd = (int)MUST(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
    int unused = (int)MUST(socket(AF_NETLINK, SOCK_DGRAM, NETLINK_ROUTE));
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_NOTIFY};
    MUST(bind(fd, (struct sockaddr *)&address, sizeof address));
    MUST(setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &far, sizeof far));
    MUST(setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on));
    uint32_t groups[4] = {0}, now[4] = {0};
    socklen_t size = sizeof groups;
    MUST(getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, groups, &size));
    address = address_of(fd);
    subject_wait(NULL);
    EXPECT(address_of(fd).nl_pid == address.nl_pid, "port %u was %u", address_of(fd).nl_pid, address.nl_pid);
    size = sizeof now;
    MUST(getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, now, &size));
    EXPECT(memcmp(now, groups, sizeof now) == 0, "groups %x %x were %x %x", now[0], now[1], groups[0], groups[1]);
    on = 0;
    size = sizeof on;
    MUST(getsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, &size));
    EXPECT(on == 1, "an option is lost");
    EXPECT(address_of(unused).nl_pid == 0, "one that was never used has port %u", address_of(unused).nl_pid);
    expect_answer(fd);
    subject_pass();
}
