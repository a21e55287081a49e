/* Threads blocked in semop, semtimedop, msgrcv, msgsnd to a full queue. */
#include "blocked.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>

struct message {
    long type;
    char text[8000];
};
static int sems, queue, full;

static long by_semop(void) { return semop(sems, &(struct sembuf){0, -1, 0}, 1); }
static void wake_semop(void) { MUST(semop(sems, &(struct sembuf){0, 1, 0}, 1)); }
static long by_semtimedop(void) { return semtimedop(sems, &(struct sembuf){1, -2, 0}, 1, &(struct timespec){600, 0}); }
static void wake_semtimedop(void) { MUST(semop(sems, &(struct sembuf){1, 2, 0}, 1)); }
static long by_msgrcv(void)
{
    struct message got;
    return msgrcv(queue, &got, sizeof got.text, 7, 0);
}
static void wake_msgrcv(void) { MUST(msgsnd(queue, &(struct message){7, "text"}, 4, 0)); }
static long by_msgsnd(void) { return msgsnd(full, &(struct message){2, "late"}, 8000, 0); }
static void wake_msgsnd(void)
{
    struct message got;
    MUST(msgrcv(full, &got, sizeof got.text, 1, IPC_NOWAIT));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sems = (int)MUST(semget(IPC_PRIVATE, 2, 0600));
    queue = (int)MUST(msgget(IPC_PRIVATE, 0600));
    full = (int)MUST(msgget(IPC_PRIVATE, 0600));
    while (msgsnd(full, &(struct message){1, "fills"}, 8000, IPC_NOWAIT) == 0)
        ;
    struct blocked all[] = {WAITS("semop", semop, 0), WAITS("semtimedop", semtimedop, 0), WAITS("msgrcv", msgrcv, 4),
                            WAITS("msgsnd", msgsnd, 0)};
    BLOCKED_THROUGH(all);
    MUST(semctl(sems, 0, IPC_RMID));
    MUST(msgctl(queue, IPC_RMID, NULL));
    MUST(msgctl(full, IPC_RMID, NULL));
    subject_pass();
}
