/* Threads find each other by the identities they know: pthread_kill, pthread_self, getpid. */
#include "../subject.h"
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

#define COUNT 4
static volatile pid_t hit[COUNT];
static volatile bool end;
static __thread int me = -1;

static void handler(int number)
{
    (void)number;
    if (me >= 0)
        hit[me] = (pid_t)syscall(SYS_gettid);
}

static void *run(void *argument)
{
    me = (int)(long)argument;
    while (!end)
        subject_tick();
    return (void *)(long)syscall(SYS_gettid);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction act = {.sa_handler = handler};
    MUST(sigaction(SIGUSR1, &act, NULL));
    pthread_t threads[COUNT], self = pthread_self();
    for (long i = 0; i < COUNT; i++)
        MUST0(pthread_create(&threads[i], NULL, run, (void *)i));
    subject_all_asleep(COUNT);
    subject_wait(NULL);
    EXPECT(pthread_equal(self, pthread_self()), "the main thread is another one");
    EXPECT(getpid() == syscall(SYS_gettid), "the main thread is not the leader");
    for (int i = 0; i < COUNT; i++) {
        MUST0(pthread_kill(threads[i], SIGUSR1));
        for (int wait = 0; wait < 1000 && !hit[i]; wait++)
            subject_tick();
        EXPECT(hit[i], "thread %d does not get its signal", i);
    }
    end = true;
    for (int i = 0; i < COUNT; i++) {
        void *tid;
        MUST0(pthread_join(threads[i], &tid));
        EXPECT((pid_t)(long)tid == hit[i], "thread %d: another one got its signal", i);
    }
    subject_pass();
}
