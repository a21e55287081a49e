/* System V semaphores: values. (Undo adjustments are not among what the OS kernel tells.) */
#include "../subject.h"
#include <sys/ipc.h>
#include <sys/sem.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int id = (int)MUST(semget(IPC_PRIVATE, 3, 0600));
    unsigned short values[3] = {5, 0, 9}, now[3];
    MUST(semctl(id, 0, SETALL, values));
    struct sembuf take = {0, -2, 0};
    MUST(semop(id, &take, 1));
    subject_wait(NULL);
    MUST(semctl(id, 0, GETALL, now));
    EXPECT(now[0] == 3 && now[1] == 0 && now[2] == 9, "the values are %d %d %d", now[0], now[1], now[2]);
    struct sembuf again = {2, -9, IPC_NOWAIT};
    MUST(semop(id, &again, 1));
    EXPECT(semop(id, &again, 1) == -1 && errno == EAGAIN, "it can be taken twice");
    MUST(semctl(id, 0, IPC_RMID));
    subject_pass();
}
