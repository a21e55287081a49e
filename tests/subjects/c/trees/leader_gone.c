/* A child whose main thread has ended, the others living on; it answers and is waited for as a whole. */
#include "tree.h"
#include <pthread.h>
#include <sys/syscall.h>

static int listens;

static void *survivor(void *argument)
{
    pid_t before = getpid();
    child_wait(listens);
    if (argument)
        for (;;)
            pause();
    EXPECT(getpid() == before && child_state(before) == 'Z', "the leader's state is %c", child_state(before));
    _exit(33);
}

static int work(int told, void *argument)
{
    (void)argument;
    listens = told;
    pthread_t threads[3];
    for (long i = 0; i < 3; i++)
        MUST0(pthread_create(&threads[i], NULL, survivor, (void *)i));
    syscall(SYS_exit, 0);
    return 1;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct child child = child_start(work, NULL);
    while (child_state(child.pid) != 'Z')
        subject_tick();
    subject_wait(NULL);
    EXPECT(waitpid(child.pid, NULL, WNOHANG) == 0, "it has ended");
    for (int i = 0; i < 3; i++)
        child_tell(child);
    child_expect_exit(child, 33, "the child");
    subject_pass();
}
