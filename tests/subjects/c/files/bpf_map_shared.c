/*
 * One BPF map behind several descriptors: a duplicate, one that only reads, one that only writes, one on its way through
 * a socket, a child's; a map of which only a writing descriptor is left; and one that is frozen.
 */
#include "../bpf.h"
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { MOST = 4 };
static const uint64_t FIRST = 0x1122334455667788, SECOND = 42;
static int map, duplicate, reading, writing, lonely, frozen, way[2];

static int opened(int fd, uint32_t flags)
{
    return (int)MUST(BPF(BPF_MAP_GET_FD_BY_ID, .map_id = bpf_facts(fd).id, .open_flags = flags));
}

static void send_descriptor(int socket, int fd)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof fd)];
    } control = {.header = {CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    struct iovec byte = {.iov_base = ".", .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.room};
    MUST(sendmsg(socket, &message, 0));
}

static int receive_descriptor(int socket)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    struct iovec place = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &place, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    MUST(recvmsg(socket, &message, MSG_DONTWAIT));
    int fd;
    memcpy(&fd, CMSG_DATA(&control.header), sizeof fd);
    return fd;
}

static uint64_t value_of(int fd, uint32_t number)
{
    uint64_t value = 0;
    EXPECT(bpf_get(fd, &number, &value) == 0, "entry %u cannot be read: %s", number, strerror(errno));
    return value;
}

static void set(int fd, uint32_t number, uint64_t value)
{
    EXPECT(bpf_put(fd, &number, &value) == 0, "entry %u cannot be written: %s", number, strerror(errno));
}

static void refuses(int fd, bool read)
{
    uint32_t number = 1;
    uint64_t value = 5;
    EXPECT((read ? bpf_get : (long (*)(int, const void *, void *))bpf_put)(fd, &number, &value) < 0 && errno == EPERM,
           "descriptor %d may %s", fd, read ? "read" : "write");
}

static void spoil(void)
{
    set(map, 1, 999);
    set(lonely, 1, 998);
}

/* The child sees what its parent writes when both are asked, and answers through the map. */
static void child(int asked)
{
    char byte;
    MUST(read(asked, &byte, 1));
    set(writing, 3, value_of(map, 2) + 1);
    _exit(0);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    map = BPF_MADE(.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = MOST);
    set(map, 1, FIRST);
    duplicate = MUST(fcntl(map, F_DUPFD, 30)); /* not to be closed by exec: so is none that bpf(2) makes */
    reading = opened(map, BPF_F_RDONLY);
    writing = opened(map, BPF_F_WRONLY);
    int other = BPF_MADE(.map_type = BPF_MAP_TYPE_HASH, .key_size = 4, .value_size = 8, .max_entries = MOST);
    set(other, 1, SECOND);
    lonely = opened(other, BPF_F_WRONLY);
    close(other);
    frozen = BPF_MADE(.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = MOST,
                      .map_flags = BPF_F_RDONLY_PROG);
    set(frozen, 1, FIRST + 1);
    MUST(BPF(BPF_MAP_FREEZE, .map_fd = (unsigned)frozen));
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, way));
    send_descriptor(way[0], reading);
    int asking[2];
    pid_t born = 0;
    if (argc > 2) {
        MUST(pipe(asking));
        born = (pid_t)MUST(fork());
        if (!born) {
            MUST(prctl(PR_SET_PDEATHSIG, SIGKILL));
            close(asking[1]);
            child(asking[0]);
        }
        close(asking[0]);
    }

    subject_wait(spoil);

    int received = receive_descriptor(way[1]);
    uint32_t id = bpf_facts(map).id;
    EXPECT(value_of(map, 1) == FIRST && value_of(map, 0) == 0, "other entries");
    for (size_t i = 0; i < 4; i++)
        EXPECT(bpf_facts((int[]){duplicate, reading, writing, received}[i]).id == id, "it is another map (%zu)", i);
    EXPECT(syscall(SYS_kcmp, getpid(), getpid(), 0, map, duplicate) == 0, "the duplicate is none");
    EXPECT(syscall(SYS_kcmp, getpid(), getpid(), 0, reading, received) == 0, "another one was received");
    refuses(reading, false);
    refuses(received, false);
    refuses(writing, true);
    refuses(lonely, true);
    refuses(frozen, false);
    set(writing, 2, SECOND);
    EXPECT(value_of(reading, 2) == SECOND && value_of(duplicate, 2) == SECOND, "they are not one map");
    EXPECT(value_of(opened(lonely, 0), 1) == SECOND, "the map of which only a writing descriptor is left differs");
    EXPECT(value_of(frozen, 1) == FIRST + 1, "the frozen map differs");
    if (born) {
        int status;
        MUST(write(asking[1], ".", 1));
        MUST(waitpid(born, &status, 0));
        EXPECT(status == 0 && value_of(map, 3) == SECOND + 1, "the child has another map");
    }
    subject_pass();
}
