/* A message queue whose next message is announced by a signal, and threads blocked in receiving and in sending. */
#include "../restarts/blocked.h"
#include <mqueue.h>
#include <signal.h>

static mqd_t empty, full, told;

static mqd_t make(const char *suffix)
{
    char name[64];
    snprintf(name, sizeof name, "/nbcr-subject-%d-%s", (int)getpid(), suffix);
    struct mq_attr attr = {.mq_maxmsg = 1, .mq_msgsize = 50};
    mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
    if (queue == (mqd_t)-1)
        subject_skip("POSIX message queues");
    MUST(mq_unlink(name));
    return queue;
}

static long by_receive(void)
{
    char text[50];
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 600;
    return mq_timedreceive(empty, text, sizeof text, NULL, &until);
}
static void wake_receive(void) { MUST(mq_send(empty, "four", 4, 0)); }
static long by_send(void) { return mq_send(full, "late", 4, 9); }
static void wake_send(void)
{
    char text[50];
    EXPECT(mq_receive(full, text, sizeof text, NULL) == 5, "the first message");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    empty = make("empty"), full = make("full"), told = make("told");
    MUST(mq_send(full, "first", 5, 1));
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1};
    MUST(mq_notify(told, &event));
    struct blocked all[] = {WAITS("mq_timedreceive", receive, 4), WAITS("mq_send", send, 0)};
    BLOCKED_THROUGH(all);
    char text[50];
    EXPECT(mq_receive(full, text, sizeof text, NULL) == 4 && !memcmp(text, "late", 4), "what was sent late");
    struct timespec none = {0}, limit = {5, 0};
    EXPECT(sigtimedwait(&set, NULL, &none) == -1, "a message was announced that nobody sent");
    MUST(mq_send(told, "x", 1, 0));
    siginfo_t info;
    EXPECT(sigtimedwait(&set, &info, &limit) == SIGRTMIN + 1 && info.si_code == SI_MESGQ, "a message is not announced");
    subject_pass();
}
