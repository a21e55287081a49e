/* A message queue whose next message starts a function in a thread (SIGEV_THREAD), asked for again by that function. */
#include "../subject.h"
#include <mqueue.h>
#include <signal.h>

static mqd_t queue;
static volatile int told;

static void announce(int value);

static void on_message(union sigval value)
{
    char text[16];
    announce(value.sival_int + 1);
    if (mq_receive(queue, text, sizeof text, NULL) == 3)
        told = value.sival_int;
}

static void announce(int value)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_message};
    event.sigev_value.sival_int = value;
    MUST(mq_notify(queue, &event));
}

static void expect_told(int value)
{
    MUST(mq_send(queue, "one", 3, 0));
    for (double limit = subject_now(CLOCK_MONOTONIC) + 10; told != value; subject_tick())
        EXPECT(subject_now(CLOCK_MONOTONIC) < limit, "nobody was told %d but %d", value, told);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char name[64];
    snprintf(name, sizeof name, "/nbcr-subject-%d-thread", (int)getpid());
    struct mq_attr attr = {.mq_maxmsg = 1, .mq_msgsize = 16};
    queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
    if (queue == (mqd_t)-1)
        subject_skip("POSIX message queues");
    MUST(mq_unlink(name));
    announce(77);
    expect_told(77);
    subject_wait(NULL);
    EXPECT(told == 77, "a message was announced that nobody sent");
    expect_told(78);
    expect_told(79);
    subject_pass();
}
