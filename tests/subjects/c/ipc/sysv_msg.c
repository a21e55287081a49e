/* A System V message queue with messages of several types. */
#include "../subject.h"
#include <sys/ipc.h>
#include <sys/msg.h>

struct message {
    long type;
    char text[200];
};

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int id = (int)MUST(msgget(IPC_PRIVATE, 0600));
    struct message message;
    for (int i = 0; i < 5; i++) {
        message.type = 1 + i % 2;
        subject_fill(message.text, sizeof message.text, (uint64_t)i);
        MUST(msgsnd(id, &message, 100 + (size_t)i, IPC_NOWAIT));
    }
    subject_wait(NULL);
    static const int order[] = {1, 3, 0, 2, 4};
    for (int i = 0; i < 5; i++) {
        ssize_t got = msgrcv(id, &message, sizeof message.text, i < 2 ? 2 : 1, IPC_NOWAIT);
        EXPECT(got == 100 + order[i], "message %d has %zd bytes", i, got);
        EXPECT_FILLED(message.text, (size_t)got, (uint64_t)order[i], "a message");
    }
    MUST(msgctl(id, IPC_RMID, NULL));
    subject_pass();
}
