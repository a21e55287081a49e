/* The main thread has ended; the others live on in a process whose leader is a zombie, which has a socketpair. */
#include "../subject.h"
#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static void *run(void *argument)
{
    pthread_t leader = *(pthread_t *)argument;
    MUST0(pthread_join(leader, NULL));
    uint64_t local[64];
    subject_fill(local, sizeof local, 5);
    int pair[2];
    char text[8] = "";
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    MUST(write(pair[0], "text", 4));
    subject_wait(NULL);
    EXPECT_FILLED(local, sizeof local, 5, "the stack");
    EXPECT(read(pair[1], text, sizeof text) == 4 && strcmp(text, "text") == 0, "the socketpair holds '%s'", text);
    EXPECT(syscall(SYS_gettid) != getpid(), "this thread became the leader");
    EXPECT(atol(subject_proc("status", "Threads:")) == 2, "%s threads", subject_proc("status", "Threads:"));
    subject_pass();
}

int main(int argc, char **argv)
{
    static pthread_t self;
    subject_begin(argc, argv);
    self = pthread_self();
    pthread_t thread;
    MUST0(pthread_create(&thread, NULL, run, &self));
    pthread_exit(NULL);
}
