/* System V message queues with a key, limits and permissions, used by two processes; one that waits for a type. */
#include "../subject.h"
#include <signal.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/wait.h>

struct message {
    long type;
    char text[2000];
};

static int ids[2];

static void spoil(void)
{
    struct message message;
    for (int i = 0; i < 2; i++)
        while (msgrcv(ids[i], &message, sizeof message.text, 0, IPC_NOWAIT) >= 0)
            ;
    message.type = 9;
    MUST(msgsnd(ids[0], &message, 1, IPC_NOWAIT));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    key_t key = (key_t)(0x6d000000 | ((unsigned)getpid() & 0xffffff));
    ids[0] = (int)MUST(msgget(IPC_PRIVATE, 0640));
    ids[1] = (int)MUST(msgget(key, IPC_CREAT | IPC_EXCL | 0600));
    struct msqid_ds facts;
    MUST(msgctl(ids[0], IPC_STAT, &facts));
    facts.msg_qbytes = 9000;
    MUST(msgctl(ids[0], IPC_SET, &facts));
    struct message message = {.type = 7};
    MUST(msgsnd(ids[0], &message, 0, 0)); /* empty */
    message.type = 1L << 40;
    subject_fill(message.text, sizeof message.text, 1);
    MUST(msgsnd(ids[0], &message, sizeof message.text, 0));
    pid_t child = (pid_t)MUST(fork());
    if (child == 0) {
        message.type = 3;
        if (msgsnd(ids[1], &message, 30, 0))
            _exit(1);
        _exit(msgrcv(ids[1], &message, sizeof message.text, 5, 0) != 4); /* nothing of that type yet */
    }
    while (msgctl(ids[1], IPC_STAT, &facts) == 0 && facts.msg_qnum == 0)
        subject_tick();
    subject_wait(spoil);

    MUST(msgctl(ids[0], IPC_STAT, &facts));
    EXPECT(facts.msg_qnum == 2 && facts.__msg_cbytes == 2000, "%lu messages of %lu bytes", facts.msg_qnum, facts.__msg_cbytes);
    EXPECT(facts.msg_qbytes == 9000 && (facts.msg_perm.mode & 0777) == 0640, "limit %lu, mode %o", facts.msg_qbytes,
           facts.msg_perm.mode);
    EXPECT(facts.msg_lspid == getpid(), "the last sender is %d", facts.msg_lspid);
    EXPECT(msgget(key, 0) == ids[1], "the key leads elsewhere");
    MUST(msgctl(ids[1], IPC_STAT, &facts));
    EXPECT(facts.msg_qnum == 1 && facts.msg_lspid == child, "%lu messages, the last by %d", facts.msg_qnum, facts.msg_lspid);
    message.type = 5;
    MUST(msgsnd(ids[1], &message, 4, 0));
    int status;
    MUST(waitpid(child, &status, 0));
    EXPECT(status == 0, "the child ended with %d", status);
    EXPECT(msgrcv(ids[0], &message, sizeof message.text, 7, IPC_NOWAIT) == 0, "the empty message is gone");
    EXPECT(msgrcv(ids[0], &message, sizeof message.text, 0, IPC_NOWAIT) == 2000, "the large message is gone");
    EXPECT(message.type == 1L << 40, "its type is %ld", message.type);
    EXPECT_FILLED(message.text, sizeof message.text, 1, "the large message");
    EXPECT(msgrcv(ids[1], &message, sizeof message.text, 3, IPC_NOWAIT) == 30, "the child's message is gone");
    MUST(msgctl(ids[0], IPC_RMID, NULL));
    MUST(msgctl(ids[1], IPC_RMID, NULL));
    subject_pass();
}
