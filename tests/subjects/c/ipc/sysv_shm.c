/* System V shared memory: attached twice, one segment marked for removal; ids, keys and sizes. */
#include "../subject.h"
#include <sys/ipc.h>
#include <sys/shm.h>

#define SIZE 150000

/* After our folder, so that whoever looks for leftovers knows whose it is (harness.py makes the same). */
static key_t own_key(void)
{
    unsigned made = 5381;
    for (const char *at = subject_base; *at; at++)
        made = made * 33 ^ (unsigned char)*at;
    return (key_t)(0x6e000000 | (made & 0xffffff));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    key_t key = own_key();
    int id = (int)MUST(shmget(key, SIZE, IPC_CREAT | IPC_EXCL | 0640));
    char *first = MUST_MAP(shmat(id, NULL, 0));
    const char *second = MUST_MAP(shmat(id, NULL, SHM_RDONLY));
    int private_id = (int)MUST(shmget(IPC_PRIVATE, SIZE, 0600));
    char *private = MUST_MAP(shmat(private_id, NULL, 0));
    MUST(shmctl(private_id, IPC_RMID, NULL));
    subject_fill(first, SIZE, 1);
    subject_fill(private, SIZE, 2);
    subject_wait(NULL);
    EXPECT_FILLED(second, SIZE, 1, "the segment");
    EXPECT_FILLED(private, SIZE, 2, "the removed segment");
    first[7] = 'z';
    EXPECT(second[7] == 'z', "the two attachments no longer show one segment");
    struct shmid_ds info;
    EXPECT(shmget(key, 0, 0) == id, "the key leads to %d instead of %d", shmget(key, 0, 0), id);
    MUST(shmctl(id, IPC_STAT, &info));
    EXPECT(info.shm_nattch == 2 && info.shm_segsz == SIZE, "%d attachments, %zu bytes", (int)info.shm_nattch,
           info.shm_segsz);
    MUST(shmdt(first));
    MUST(shmdt(second));
    MUST(shmctl(id, IPC_RMID, NULL));
    subject_pass();
}
