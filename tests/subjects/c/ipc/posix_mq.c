/* POSIX message queues: messages of several priorities in their order, one unlinked, one empty, one for writing only. */
#include "../subject.h"
#include <mqueue.h>

static char names[3][64];
static mqd_t queues[3];

static mqd_t make(int i, int flags, long most, long size)
{
    snprintf(names[i], sizeof names[i], "/nbcr-subject-%d-%d", (int)getpid(), i);
    struct mq_attr attr = {.mq_maxmsg = most, .mq_msgsize = size};
    mqd_t queue = mq_open(names[i], flags | O_CREAT | O_EXCL, 0620, &attr);
    if (queue == (mqd_t)-1)
        subject_skip("POSIX message queues");
    return queue;
}

static void expect_next(mqd_t queue, const char *wanted, unsigned priority)
{
    char text[256] = "";
    unsigned now = 0;
    ssize_t got = mq_receive(queue, text, sizeof text, &now);
    EXPECT(got == (ssize_t)strlen(wanted) && !memcmp(text, wanted, (size_t)got), "'%s' comes instead of '%s'", text, wanted);
    EXPECT(now == priority, "'%s' has priority %u", wanted, now);
}

static void spoil(void)
{
    char text[256];
    mq_receive(queues[0], text, sizeof text, NULL);
    mq_send(queues[0], "spoilt", 6, 30);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    queues[0] = make(0, O_RDWR | O_NONBLOCK, 6, 200);
    queues[1] = make(1, O_RDWR, 2, 100);
    queues[2] = make(2, O_WRONLY | O_NONBLOCK, 3, 50);
    mqd_t second = mq_open(names[0], O_RDONLY), reader = mq_open(names[2], O_RDONLY | O_NONBLOCK);
    static const struct {
        const char *text;
        unsigned priority;
    } sent[] = {{"low", 1}, {"high", 9}, {"low too", 1}, {"", 9}, {"highest", 31}};
    for (int i = 0; i < 5; i++)
        MUST(mq_send(queues[0], sent[i].text, strlen(sent[i].text), sent[i].priority));
    MUST(mq_send(queues[1], "in the unlinked one", 19, 4));
    MUST(mq_unlink(names[1]));
    int flags = fcntl((int)queues[1], F_GETFL);
    subject_wait(spoil);
    EXPECT(fcntl((int)queues[1], F_GETFL) == flags, "flags %#x became %#x", flags, fcntl((int)queues[1], F_GETFL));
    struct mq_attr now;
    MUST(mq_getattr(queues[0], &now));
    EXPECT(now.mq_curmsgs == 5 && now.mq_maxmsg == 6 && now.mq_msgsize == 200, "%ld messages", now.mq_curmsgs);
    EXPECT(now.mq_flags == O_NONBLOCK, "O_NONBLOCK is lost");
    MUST(mq_getattr(second, &now));
    EXPECT(now.mq_flags == 0, "the second descriptor does not block");
    static const int order[] = {4, 1, 3, 0, 2};
    for (int i = 0; i < 5; i++)
        expect_next(i % 2 ? second : queues[0], sent[order[i]].text, sent[order[i]].priority);
    char text[256];
    EXPECT(mq_receive(queues[0], text, sizeof text, NULL) == -1 && errno == EAGAIN, "there is one more");
    expect_next(queues[1], "in the unlinked one", 4);
    EXPECT(mq_open(names[1], O_RDONLY) == (mqd_t)-1 && errno == ENOENT, "the unlinked name is back");
    EXPECT(mq_receive(reader, text, sizeof text, NULL) == -1 && errno == EAGAIN, "the empty one is not");
    MUST(mq_send(queues[2], "x", 1, 0));
    expect_next(reader, "x", 0);
    struct stat st;
    MUST(fstat((int)queues[1], &st));
    EXPECT((st.st_mode & 0777) == (0620 & ~0022), "mode %o", st.st_mode & 0777);
    MUST(mq_unlink(names[0]));
    MUST(mq_unlink(names[2]));
    subject_pass();
}
