/* Shared mappings that may only be read now: whether they can be made writable depends on what they were made from. */
#include "../subject.h"
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

enum { SIZE = 8192 };

static char *view(int fd, int prot)
{
    return MUST_MAP(mmap(NULL, SIZE, prot, MAP_SHARED, fd, 0));
}

/* Two views, from a descriptor that may write and from one that may not. */
static void make(const char *path, char *views[2])
{
    int both = MUST(open(path, O_RDWR | O_CREAT, 0600)), reads = MUST(open(path, O_RDONLY));
    MUST(ftruncate(both, SIZE));
    views[0] = view(both, PROT_READ | PROT_WRITE);
    views[1] = view(reads, PROT_READ);
    strcpy(views[0], "before");
    MUST(mprotect(views[0], SIZE, PROT_READ));
    close(both);
    close(reads);
}

static void check(char *views[2], const char *what)
{
    EXPECT(strcmp(views[0], "before") == 0, "%s: the content differs", what);
    EXPECT(mprotect(views[0], SIZE, PROT_READ | PROT_WRITE) == 0, "%s cannot be made writable: %s", what, strerror(errno));
    strcpy(views[0], "after");
    EXPECT(strcmp(views[1], "after") == 0, "%s: the other view does not show what was written", what);
    EXPECT(mprotect(views[1], SIZE, PROT_READ | PROT_WRITE) == -1 && errno == EACCES,
           "%s can be written to through what was only opened for reading", what);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char *file[2], *memory[2], shown[64];
    make(subject_path("file"), file);
    int fd = MUST(memfd_create("views", 0));
    snprintf(shown, sizeof shown, "/proc/self/fd/%d", fd);
    make(shown, memory);
    int id = MUST(shmget(IPC_PRIVATE, SIZE, 0600));
    char *segment = MUST_MAP(shmat(id, NULL, 0));
    MUST(shmctl(id, IPC_RMID, NULL));
    strcpy(segment, "before");
    MUST(mprotect(segment, SIZE, PROT_READ));
    subject_wait(NULL);
    check(file, "a file");
    check(memory, "a memfd");
    EXPECT(mprotect(segment, SIZE, PROT_READ | PROT_WRITE) == 0, "a segment cannot be made writable");
    strcpy(segment, "after");
    subject_pass();
}
