/* A POSIX message queue with messages of several priorities. */
#include "../subject.h"
#include <mqueue.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char name[64], text[256];
    snprintf(name, sizeof name, "/nbcr-subject-%d", (int)getpid());
    struct mq_attr attr = {.mq_maxmsg = 6, .mq_msgsize = 200}, now;
    mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attr);
    if (queue == (mqd_t)-1)
        subject_skip("POSIX message queues");
    MUST(mq_send(queue, "low", 3, 1));
    MUST(mq_send(queue, "high", 4, 9));
    MUST(mq_send(queue, "low too", 7, 1));
    subject_wait(NULL);
    unsigned priority;
    static const char *wanted[] = {"high", "low", "low too"};
    MUST(mq_getattr(queue, &now));
    EXPECT(now.mq_curmsgs == 3 && now.mq_maxmsg == 6 && now.mq_flags == O_NONBLOCK, "%ld messages", now.mq_curmsgs);
    for (int i = 0; i < 3; i++) {
        ssize_t got = mq_receive(queue, text, sizeof text, &priority);
        EXPECT(got == (ssize_t)strlen(wanted[i]) && !memcmp(text, wanted[i], (size_t)got), "message %d", i);
        EXPECT(priority == (i ? 1 : 9), "message %d: priority %u", i, priority);
    }
    EXPECT(mq_receive(queue, text, sizeof text, NULL) == -1 && errno == EAGAIN, "it blocks, or there is more");
    MUST(mq_unlink(name));
    subject_pass();
}
