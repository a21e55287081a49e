/* A program that a thread other than the main one has started by execve, which makes it the only thread. */
#include "../subject.h"
#include <pthread.h>
#include <sys/syscall.h>

static char **arguments;

static void *run(void *argument)
{
    (void)argument;
    execl("/proc/self/exe", arguments[0], arguments[1], "again", NULL);
    subject_fail("execl: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    arguments = argv;
    if (argc == 2) {
        pthread_t thread;
        MUST0(pthread_create(&thread, NULL, run, NULL));
        for (;;)
            pause();
    }
    subject_wait(NULL);
    EXPECT(syscall(SYS_gettid) == getpid(), "thread %ld is not the main one", syscall(SYS_gettid));
    EXPECT(atoi(subject_proc("status", "Threads:")) == 1, "%s threads", subject_proc("status", "Threads:"));
    subject_pass();
}
