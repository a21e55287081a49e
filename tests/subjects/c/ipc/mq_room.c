/* Message queues without a name, for which a user's room (RLIMIT_MSGQUEUE) is more than half taken. */
#include "../subject.h"
#include <mqueue.h>

enum { COUNT = 6 };

static mqd_t queues[COUNT];

static void spoil(void)
{
    char text[8192];
    MUST(mq_receive(queues[0], text, sizeof text, NULL));
    MUST(mq_send(queues[1], "spoilt", 6, 30));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    for (int i = 0; i < COUNT; i++) {
        char name[64];
        snprintf(name, sizeof name, "/nbcr-subject-%d-%d", (int)getpid(), i);
        struct mq_attr attr = {.mq_maxmsg = 10, .mq_msgsize = 8192};
        queues[i] = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attr);
        if (queues[i] == (mqd_t)-1)
            subject_skip("room for message queues");
        MUST(mq_unlink(name));
        MUST(mq_send(queues[i], "one", 3, (unsigned)i));
    }
    subject_wait(spoil);
    for (int i = 0; i < COUNT; i++) {
        char text[8192];
        unsigned priority = 99;
        EXPECT(mq_receive(queues[i], text, sizeof text, &priority) == 3 && priority == (unsigned)i, "queue %d: %u", i, priority);
        EXPECT(mq_receive(queues[i], text, sizeof text, NULL) == -1 && errno == EAGAIN, "queue %d has more", i);
    }
    subject_pass();
}
