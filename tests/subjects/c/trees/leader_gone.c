/*
 * A child whose main thread has ended, the others living on; it answers and is waited for as a whole. One of them has
 * forked a child of its own, which is to be killed at its parent's death.
 */
#include "tree.h"
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static int listens, born[2];

static pid_t start_grandchild(void)
{
    pid_t pid = (pid_t)MUST(fork());
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    MUST(write(born[1], "!", 1));
    for (;;)
        pause();
}

static void *survivor(void *argument)
{
    pid_t before = getpid();
    if (argument)
        for (;;)
            pause();
    while (child_state(before) != 'Z')
        subject_tick();
    pid_t grandchild = start_grandchild();
    child_wait(listens);
    EXPECT(waitpid(grandchild, NULL, WNOHANG) == 0, "the grandchild has ended");
    MUST(kill(grandchild, SIGTERM));
    MUST(waitpid(grandchild, NULL, 0));
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
    char told;
    MUST(pipe(born));
    struct child child = child_start(work, NULL);
    MUST(read(born[0], &told, 1));
    subject_wait(NULL);
    EXPECT(waitpid(child.pid, NULL, WNOHANG) == 0, "it has ended");
    child_tell(child);
    child_expect_exit(child, 33, "the child");
    subject_pass();
}
