/* System V semaphores taken with SEM_UNDO, by a process that ends later and by one whose threads share the promise. */
#include "../subject.h"
#include <pthread.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/wait.h>

static int id;

static void operate(int index, int by, int flags)
{
    struct sembuf step = {(unsigned short)index, (short)by, (short)flags};
    MUST(semop(id, &step, 1));
}

static void *take(void *unused)
{
    operate(1, -3, SEM_UNDO);
    pause();
    return unused;
}

static void child(void)
{
    pthread_t thread;
    operate(0, -1, SEM_UNDO);
    MUST0(pthread_create(&thread, NULL, take, NULL));
    subject_all_asleep(1);
    operate(2, 2, SEM_UNDO);
    for (;;)
        pause();
}

static void expect(const char *when, int first, int second, int third)
{
    unsigned short now[3];
    MUST(semctl(id, 0, GETALL, now));
    EXPECT(now[0] == first && now[1] == second && now[2] == third, "%s the values are %d %d %d", when, now[0], now[1],
           now[2]);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    id = (int)MUST(semget(IPC_PRIVATE, 3, 0600));
    unsigned short values[3] = {1, 5, 0};
    MUST(semctl(id, 0, SETALL, values));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0)
        child();
    while (semctl(id, 2, GETVAL) != 2)
        subject_tick();
    subject_wait(NULL);
    expect("before", 0, 2, 2);
    EXPECT(semctl(id, 0, GETPID) == pid, "operated last by %d, not %d", semctl(id, 0, GETPID), pid);
    MUST(kill(pid, SIGTERM));
    MUST(waitpid(pid, NULL, 0));
    expect("when the child has ended", 1, 5, 0);
    MUST(semctl(id, 0, IPC_RMID));
    subject_pass();
}
