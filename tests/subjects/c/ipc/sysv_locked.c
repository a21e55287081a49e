/* System V shared memory that is kept out of swap (SHM_LOCK), and goes with its last user. */
#include "../subject.h"
#include <sys/ipc.h>
#include <sys/shm.h>

/* The mode of the segment of this size, as /proc shows it; its identifier may be another one after a restore. */
static unsigned mode_of(size_t size)
{
    FILE *table = fopen("/proc/sysvipc/shm", "r");
    char line[256];
    unsigned mode, found = 0;
    size_t bytes;
    while (table && fgets(line, sizeof line, table))
        if (sscanf(line, "%*d %*d %o %zu", &mode, &bytes) == 2 && bytes == size)
            found = mode;
    if (table)
        fclose(table);
    return found;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    size_t size = 4096 + (size_t)getpid();
    int id = (int)MUST(shmget(IPC_PRIVATE, size, 0600));
    char *memory = MUST_MAP(shmat(id, NULL, 0));
    int locked = shmctl(id, SHM_LOCK, NULL);
    MUST(shmctl(id, IPC_RMID, NULL));
    if (locked)
        subject_skip("memory that may be locked");
    subject_fill(memory, size, 1);
    unsigned mode = mode_of(size);
    EXPECT(mode & SHM_LOCKED, "its mode is %o", mode);
    subject_wait(NULL);
    EXPECT(mode_of(size) == mode, "its mode is %o instead of %o", mode_of(size), mode);
    EXPECT_FILLED(memory, size, 1, "the segment");
    subject_pass();
}
