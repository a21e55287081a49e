/* Descriptors in flight: sent by SCM_RIGHTS, not yet received. */
#include "../subject.h"
#include <sys/socket.h>

static void give(int socket_fd, int *fds, int count, const char *text)
{
    char control[CMSG_SPACE(sizeof(int) * 4)] = {0};
    struct iovec data = {(void *)(uintptr_t)text, strlen(text)};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control};
    message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
    memcpy(CMSG_DATA(header), fds, sizeof(int) * (size_t)count);
    MUST(sendmsg(socket_fd, &message, 0));
}

static int take(int socket_fd, int *fds, char *text, size_t room)
{
    char control[CMSG_SPACE(sizeof(int) * 4)] = {0};
    struct iovec data = {text, room};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t got = MUST(recvmsg(socket_fd, &message, MSG_DONTWAIT));
    text[got] = 0;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header)
        return 0;
    memcpy(fds, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
    return (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int channel[2], pipe_ends[2], fds[4];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
    MUST(pipe(pipe_ends));
    MUST(write(pipe_ends[1], "piped", 5));
    int file = (int)MUST(open(subject_path("file"), O_RDWR | O_CREAT | O_TRUNC, 0600));
    MUST(write(file, "0123456789", 10));
    MUST(lseek(file, 6, SEEK_SET));
    int both[2] = {file, pipe_ends[0]};
    give(channel[0], both, 2, "two descriptors");
    MUST(close(file));
    MUST(close(pipe_ends[0]));
    MUST(send(channel[0], "plain", 5, 0));
    subject_wait(NULL);
    char text[64];
    EXPECT(take(channel[1], fds, text, 15) == 2, "no two descriptors arrive");
    EXPECT(strcmp(text, "two descriptors") == 0, "with '%s'", text);
    EXPECT(read(fds[0], text, 10) == 4 && !memcmp(text, "6789", 4), "the file's offset");
    EXPECT(read(fds[1], text, 10) == 5 && !memcmp(text, "piped", 5), "the pipe's content");
    EXPECT(write(pipe_ends[1], "more", 4) == 4 && read(fds[1], text, 10) == 4, "the pipe is another one");
    EXPECT(take(channel[1], fds, text, 15) == 0 && !strcmp(text, "plain"), "then comes '%s'", text);
    subject_pass();
}
