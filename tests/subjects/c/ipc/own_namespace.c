/*
 * An IPC namespace of a tree's own, with System V objects under keys that others may have outside, one that nobody has
 * used, a POSIX queue, and a limit; a child has its part in them (privileged).
 */
#include "../trees/tree.h"
#include <mqueue.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

#define KEY 0x6e626372
#define BYTES 20000

static struct {
    long type;
    char text[32];
} message = {3, "from before"};
static int queue, set, unused, segment;
static mqd_t posix_queue;
static char *view;

static ino_t number_of(const char *path)
{
    struct stat found;
    return stat(path, &found) ? 0 : found.st_ino;
}

static void limit(const char *value)
{
    int fd = (int)MUST(open("/proc/sys/kernel/msgmax", O_WRONLY));
    MUST(write(fd, value, strlen(value)));
    close(fd);
}

static int child(int told, void *argument)
{
    (void)argument;
    child_wait(told);
    if (msgget(KEY, 0) != queue || semctl(set, 1, GETVAL) != 7 || subject_differs(view, BYTES, 5) >= 0)
        return 1;
    message.type = 4;
    return msgsnd(queue, &message, sizeof message.text, 0) ? 2 : 3;
}

static void spoil(void)
{
    MUST(semctl(set, 1, SETVAL, 1));
    MUST(msgrcv(queue, &message, sizeof message.text, 0, 0));
    memset(view, 0, BYTES);
    limit("7000");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    ino_t outside = number_of("/proc/self/ns/ipc");
    struct mq_attr room = {.mq_maxmsg = 3, .mq_msgsize = 16};
    unsigned priority;
    char line[64] = "";
    if (unshare(CLONE_NEWIPC))
        subject_skip("namespaces (CAP_SYS_ADMIN)");
    limit("8000");
    queue = (int)MUST(msgget(KEY, IPC_CREAT | 0600));
    unused = (int)MUST(msgget(IPC_PRIVATE, 0600));
    set = (int)MUST(semget(KEY, 3, IPC_CREAT | 0600));
    segment = (int)MUST(shmget(KEY, BYTES, IPC_CREAT | 0600));
    view = MUST_MAP(shmat(segment, NULL, 0));
    subject_fill(view, BYTES, 5);
    MUST(msgsnd(queue, &message, sizeof message.text, 0));
    MUST(semctl(set, 1, SETVAL, 7));
    posix_queue = (mqd_t)MUST(mq_open("/nbcr-of-one-tree", O_RDWR | O_CREAT, 0600, &room));
    MUST(mq_send(posix_queue, "posix", 6, 2));
    struct child other = child_start(child, NULL);
    subject_wait(spoil);
    EXPECT(number_of("/proc/self/ns/ipc") != outside, "it is in the namespace outside");
    EXPECT(msgget(KEY, 0) == queue && semget(KEY, 3, 0) == set && shmget(KEY, 0, 0) == segment, "other identifiers");
    EXPECT(semctl(set, 1, GETVAL) == 7 && semctl(set, 0, GETVAL) == 0, "other values");
    EXPECT_FILLED(view, BYTES, 5, "shared memory");
    memset(&message, 0, sizeof message);
    MUST(msgrcv(queue, &message, sizeof message.text, 3, IPC_NOWAIT));
    EXPECT(strcmp(message.text, "from before") == 0, "the message is %s", message.text);
    EXPECT(mq_receive(posix_queue, line, sizeof line, &priority) == 6 && priority == 2, "the POSIX message is %s", line);
    child_tell(other);
    child_expect_exit(other, 3, "the child");
    MUST(msgrcv(queue, &message, sizeof message.text, 4, IPC_NOWAIT));
    struct msqid_ds about;
    EXPECT(msgctl(unused, IPC_STAT, &about) == 0, "the queue that nobody used is gone");
    int fd = (int)MUST(open("/proc/sys/kernel/msgmax", O_RDONLY));
    MUST(read(fd, line, sizeof line));
    close(fd);
    EXPECT(atoi(line) == 8000, "the limit is %s", line);
    subject_pass();
}
