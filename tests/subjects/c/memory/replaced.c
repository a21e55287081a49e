/* A large memory that a restore in place replaces: nobody may see that somebody else gives the old one back. */
#include "../subject.h"
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>

#define SIZE ((size_t)96 << 20)
#define SHARED ((size_t)1 << 20)
static char *block, *shared, *segment;

static void spoil(void) { memset(block, 0x55, SIZE); }

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    block = malloc(SIZE);
    subject_fill(block, SIZE, 5);
    int memfd = (int)MUST(memfd_create("sealed later", MFD_ALLOW_SEALING));
    MUST(ftruncate(memfd, (off_t)SHARED));
    shared = mmap(NULL, SHARED, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    EXPECT(shared != MAP_FAILED, "mmap");
    subject_fill(shared, SHARED, 6);
    int id = (int)MUST(shmget(IPC_PRIVATE, SHARED, 0600));
    segment = shmat(id, NULL, 0);
    MUST(shmctl(id, IPC_RMID, NULL));
    EXPECT(segment != (char *)-1, "shmat");
    subject_fill(segment, SHARED, 7);
    subject_wait(spoil);
    EXPECT_FILLED(block, SIZE, 5, "the block");
    EXPECT_FILLED(shared, SHARED, 6, "the shared memory");
    EXPECT_FILLED(segment, SHARED, 7, "the segment");
    struct shmid_ds about;
    if (shmctl(id, IPC_STAT, &about) == 0) /* a user's fresh restore cannot choose the number */
        EXPECT(about.shm_nattch == 1, "the segment has %lu users", (unsigned long)about.shm_nattch);
    MUST(munmap(shared, SHARED));
    MUST(fcntl(memfd, F_ADD_SEALS, F_SEAL_WRITE)); /* refused while anybody has it mapped for writing */
    errno = 0;
    EXPECT(waitpid(-1, NULL, WNOHANG | __WALL) == -1 && errno == ECHILD, "there is a child (%d)", errno);
    subject_pass();
}
