/* Descriptors in flight inside sockets in flight; a memfd, an epoll, a pipe with content; a socket that carries itself. */
#include "../subject.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

static void give(int to, const int *fds, int count)
{
    char control[CMSG_SPACE(sizeof(int) * 8)] = {0};
    struct msghdr message = {.msg_iov = &(struct iovec){"x", 1}, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count)};
    memcpy(CMSG_DATA(header), fds, sizeof(int) * (size_t)count);
    MUST(sendmsg(to, &message, 0));
}

static int take(int from, int *fds)
{
    char control[CMSG_SPACE(sizeof(int) * 8)] = {0}, byte;
    struct msghdr message = {.msg_iov = &(struct iovec){&byte, 1}, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    EXPECT(recvmsg(from, &message, MSG_DONTWAIT) == 1, "nothing came: %s", strerror(errno));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    EXPECT(header, "no descriptors came");
    memcpy(fds, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
    return (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int outer[2], inner[2], own[2], pipe_ends[2], got[8];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, outer));
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, inner));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, own));
    MUST(pipe(pipe_ends));
    MUST(write(pipe_ends[1], "deep inside", 11));
    int memory = (int)MUST(memfd_create("in flight", 0)), set = (int)MUST(epoll_create1(0)), event = (int)MUST(eventfd(3, 0));
    MUST(ftruncate(memory, 8192));
    char *view = MUST_MAP(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0));
    subject_fill(view, 8192, 6);
    MUST(epoll_ctl(set, EPOLL_CTL_ADD, event, &(struct epoll_event){.events = EPOLLIN, .data.u64 = 11}));
    give(inner[0], (int[]){pipe_ends[0], memory}, 2);
    give(inner[0], (int[]){event}, 1);
    give(outer[0], (int[]){inner[1], set, inner[1]}, 3);
    give(own[0], (int[]){own[1]}, 1);
    int closed[] = {pipe_ends[0], memory, set, event, inner[1]};
    for (int i = 0; i < 5; i++)
        MUST(close(closed[i]));
    subject_wait(NULL);
    EXPECT(take(outer[1], got) == 3, "from the outer one");
    int received = got[0], epoll = got[1], first[8];
    EXPECT(take(received, first) == 2, "from the inner one");
    char text[20] = "";
    EXPECT(read(first[0], text, 20) == 11 && !strcmp(text, "deep inside"), "the pipe holds '%s'", text);
    char *second = MUST_MAP(mmap(NULL, 8192, PROT_READ, MAP_SHARED, first[1], 0));
    EXPECT_FILLED(second, 8192, 6, "the memfd");
    view[5] = 'q';
    EXPECT(second[5] == 'q', "the memfd is another one");
    EXPECT(take(got[2], first) == 1, "the second message of the inner one, by its second descriptor");
    struct epoll_event told;
    EXPECT(epoll_wait(epoll, &told, 1, 0) == 1 && told.data.u64 == 11, "the epoll does not tell");
    eventfd_t count;
    EXPECT(eventfd_read(first[0], &count) == 0 && count == 3, "the eventfd counts %lu", (unsigned long)count);
    EXPECT(epoll_wait(epoll, &told, 1, 0) == 0, "the epoll watches another one");
    EXPECT(take(own[1], got) == 1, "the socket that carries itself");
    MUST(send(own[0], "z", 1, 0));
    EXPECT(recv(got[0], text, 1, MSG_DONTWAIT) == 1 && text[0] == 'z', "it is not itself");
    subject_pass();
}
